"""The rows of the table: what is run, in which steps, with which answer expected, and against which physical bound.

This module decides nothing about when a row runs; `run.py` does, in turns.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys

import compare
import measure


class Skip(Exception):
    """A row cannot run here; the words say why."""


class Row:
    """One line of the table. `steps` are command lines, each a fresh process; `prepare` runs before and is not
    measured. `bound` is the kind of physical bound: cold (read the store, write the answer), warm (write it), or None.
    `repeats` is for rows of milliseconds: measurements in each round. `restore` runs after each measurement.
    """

    def __init__(self, engine, mode, job, threads, steps, expected=None, prepare=None, bound=None, out=None,
                 validates="", sample=True, once=False, repeats=1, restore=None):
        self.engine, self.mode, self.job, self.threads = engine, mode, job, threads
        self.steps, self.expected, self.prepare, self.bound = steps, expected, prepare, bound
        self.out, self.validates, self.sample, self.once = out, validates, sample, once
        self.repeats, self.restore = repeats, restore
        self.samples, self.words, self.answer_bytes = [], "", 0

    @property
    def key(self):
        return f"{self.engine}/{self.mode}/{self.job}/{self.threads}"

    @property
    def counts(self):
        return bool(self.samples) and not self.words

    def median(self, what):
        return statistics.median(getattr(sample, what) for sample in self.samples)

    def least(self, what):
        return min(getattr(sample, what) for sample in self.samples)

    def most(self, what):
        return max(getattr(sample, what) for sample in self.samples)

    def as_dict(self):
        return {"engine": self.engine, "mode": self.mode, "job": self.job, "threads": self.threads,
                "validates": self.validates, "words": self.words, "bound": self.bound,
                "answer_bytes": self.answer_bytes,
                "samples": [sample.as_dict() for sample in self.samples]}


def empty(directory):
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)


def fetch(*directories):
    """Reads every file below, so that what is measured next finds it in the page cache."""
    for path in files_below(*directories):
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def files_below(*directories):
    for directory in directories:
        for parent, _, names in os.walk(directory):
            yield from (os.path.join(parent, name) for name in names)


def drop(*directories):
    """Has the system forget the pages of every file below, so that what is measured next reads them from the disk."""
    for path in files_below(*directories):
        with open(path, "rb", buffering=0) as file:
            os.fsync(file.fileno())  # what is not written yet would stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def content(directory):
    """The content of an answer, counted in a process of its own: this one must stay small (see `measure`)."""
    here = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run([sys.executable, f"{here}/compare.py", directory], capture_output=True, text=True)
    if done.returncode:
        raise Skip(f"the answer cannot be read: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def run(row, log):
    """The measurements of a row in one round. A command that fails, or another answer than expected, takes the row out
    for good.
    """
    for _ in range(row.repeats):
        if not row.words and not (row.once and row.samples):
            _once(row, log)


def _once(row, log):
    try:
        if row.out:
            empty(row.out)
        if row.prepare:
            row.prepare()
        total = measure.Sample()
        for step in row.steps:
            sample = measure.run(step, log, row.sample)
            if sample.code:
                raise Skip(f"`{os.path.basename(step[0])} {step[1]}` ended with {sample.code}; see {log}")
            total = total.then(sample)
        if row.out:
            row.answer_bytes = sum(entry.stat().st_size for entry in os.scandir(row.out) if ".ndjson" in entry.name)
        if row.expected is not None:
            differs = compare.difference(row.expected, content(row.out))
            if differs:
                raise Skip(f"another answer: {differs}")
        row.samples.append(total)
    except Skip as words:
        row.words = str(words)
    finally:
        if row.out:
            shutil.rmtree(row.out, ignore_errors=True)
        if row.restore:
            row.restore()
