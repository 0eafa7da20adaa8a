"""Everything that one run of the kit knows: the store and what is derived from it, the jobs, the reference answers, the
engines at hand, and the list of rows. `run.py` is the program.
"""

import glob
import importlib
import json
import os
import shutil
import subprocess
import sys

import compare
import measure
import store as stores
import zstd
from engines.outpour import Outpour
from jobs import Job
from rows import Row, Skip, content, drop, empty, fetch, run

RIVALS = ["duckdb", "clickhouse", "orjson", "polars", "jq", "jaq", "stdlib"]
HERE = os.path.dirname(os.path.abspath(__file__))


class Kit:
    def __init__(self, options):
        self.options = options
        self.work = os.path.abspath(options.work)
        self.outpour = Outpour(os.path.abspath(options.outpour))
        self.log = f"{self.work}/log"
        self.python = options.python
        os.makedirs(f"{self.work}/scratch", exist_ok=True)
        self.rivals = [name for name in options.only if name in RIVALS]
        self.notes, self.rows = [], []
        self.index_dir = f"{self.work}/index"

    def do(self, argv, what):
        """A step that is not measured. Skip says why it cannot be done."""
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            if "unrecognized subcommand" in done.stderr:
                raise Skip(f"this outpour has no `{argv[1]}`")
            raise Skip(f"{what}: {(done.stderr.strip() or str(done.returncode)).splitlines()[-1]}")
        return done.stdout

    # The store, the jobs and their answers.

    def prepare(self):
        directory = self.options.store
        if not directory:
            directory = f"{self.work}/store-{self.options.patients}"
            if not os.path.exists(f"{directory}.made"):
                shutil.rmtree(directory, ignore_errors=True)
                self.do(self.outpour.synth(directory, self.options.patients), "synth")
                open(f"{directory}.made", "w").close()
        self.store = stores.describe(os.path.abspath(directory))
        self.groups = stores.groups(self.store, f"{self.work}/groups")
        since = stores.middle_instant(self.store)
        jobs = [Job("1", "Group of 1 %", self.groups["1"]),
                Job("10", f"Group of 10 %, `_since` {since}", self.groups["10"], since),
                Job("all", "Group of everybody", self.groups["all"])]
        self.jobs = [job for job in jobs if job.name in self.options.jobs]
        self.one = Job("one", "one patient", self.groups["one"])
        self.warm(self.store.directory, self.index_dir)
        self.answers = {job.name: self.answer(job) for job in self.jobs + [self.one]}

    def warm(self, directory, index_dir):
        """An index that is up to date, and the store's bytes in the page cache."""
        shutil.rmtree(index_dir, ignore_errors=True)
        self.do(self.outpour.index(directory, index_dir, 1), "index")

    def answer(self, job):
        """The reference answer: outpour's files, kept for `cp`. Every other engine is held to its content."""
        out = f"{self.work}/reference/{job.name}"
        shutil.rmtree(out, ignore_errors=True)
        os.makedirs(out)
        told = json.loads(self.do(self.outpour.export(self.store.directory, self.index_dir, out, job, 1) + ["--json"],
                                  "export"))
        ledger = told.get("ledger", {})
        odd = {name: ledger[name] for name in ("superseded", "deleted", "tombstone", "future", "faulty")
               if ledger.get(name)}
        if odd:
            raise SystemExit(f"{self.store.directory}: not a store for this kit, it has {odd}")
        return content(out)

    def bytes_of(self, job):
        """Bytes of a job's answer; 0 for a row that is no job."""
        return sum(size for _, size, _ in self.answers.get(job, {}).values())

    def rows_of(self, job):
        return sum(count for count, _, _ in self.answers.get(job, {}).values())

    def files(self, job):
        return sorted(glob.glob(f"{self.work}/reference/{job.name}/*.ndjson"))

    # The rivals.

    def version(self, name):
        """An engine's version, or None where it is not installed."""
        engine = importlib.import_module(f"engines.{name}")
        if getattr(engine, "COMMAND", None):
            path = shutil.which(engine.COMMAND)
            return path and subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()
        if not engine.PACKAGES:
            return "%d.%d.%d" % sys.version_info[:3]
        package = engine.PACKAGES[0]
        code = f"import {package}, importlib.metadata as m; print(m.version('{package}'))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    def task(self, name, formulation, job, threads, files=None):
        """The command line of a rival's process, and the directory of its answer."""
        key = f"{name}-{formulation}-{job.name}-{threads}{'' if files is None else '-start'}"
        out, path = f"{self.work}/out/{key}", f"{self.work}/scratch/{key}.json"
        words = {"engine": name, "formulation": formulation, "since": job.since, "group": job.group, "out": out,
                 "threads": threads, "files": self.store.files if files is None else files,
                 "scratch": f"{self.work}/scratch", "database": f"{self.work}/database-{name}"}
        with open(path, "w") as file:
            json.dump(words, file)
        return [self.python, f"{HERE}/worker.py", path], out

    def rival(self, name, formulation, job, threads, mode="cold", **more):
        engine = importlib.import_module(f"engines.{name}")
        step, out = self.task(name, formulation, job, threads, more.pop("files", None))
        return Row(engine.TITLE, mode, job.name, threads, [step], out=out, validates=engine.VALIDATES, **more)

    # The rows.

    def plan(self, formulations):
        """Every row of this run. `formulations` says which one of each rival was the fastest."""
        for threads in self.options.threads:
            for job in self.jobs:
                if "outpour" in self.options.only:
                    self.plain(job, threads)
                for name in self.rivals:
                    engine = importlib.import_module(f"engines.{name}")
                    if getattr(engine, "SLOW", False) and (threads > 1 or job.name != "10"):
                        continue
                    self.rows.append(self.rival(name, formulations[name], job, threads, bound="cold",
                                                expected=self.answers[job.name], once=getattr(engine, "SLOW", False)))
                    if getattr(engine, "LOADS", False) and not self.options.quick:
                        self.rows.append(self.rival(name, "loaded", job, threads, "loaded", bound="warm",
                                                    expected=self.answers[job.name]))
        for name in self.rivals:
            engine = importlib.import_module(f"engines.{name}")
            self.rows.append(self.rival(name, formulations[name], self.jobs[0], 1, "start", files=[]))
        if "outpour" in self.options.only:
            for job in self.jobs:
                self.copies(job)
            self.single(self.one, self.store.directory, self.index_dir, "warm", self.answers["one"])
            self.indexes()
            self.attempt(self.packed, "packed")
            self.attempt(self.packed_in_gzip, "packed in gzip")
            if not self.options.quick:
                self.from_disk()
            if self.options.extras:
                self.attempt(self.eighth, "store of an eighth")
                self.attempt(self.arranged, "stores in order of arrival")

    def attempt(self, what, title):
        try:
            what()
        except Skip as words:
            self.notes.append(f"{title}: {words}")

    def add(self, mode, job, threads, steps, **more):
        more.setdefault("expected", self.answers.get(job.name))
        row = Row("outpour", mode, job.name, threads, steps, out=f"{self.work}/out/outpour", **more)
        self.rows.append(row)
        return row

    def plain(self, job, threads):
        """Cold (index and export), with full and with structural validation; warm; warm and synced."""
        store, fresh, out = self.store.directory, f"{self.work}/index-cold", f"{self.work}/out/outpour"
        forget = lambda: shutil.rmtree(fresh, ignore_errors=True)
        outpour = self.outpour
        self.add("cold", job, threads, [outpour.export(store, fresh, out, job, threads)], prepare=forget,
                 bound="cold", validates="RFC 8259 and UTF-8")
        self.add("cold, structure", job, threads,
                 [outpour.index(store, fresh, threads, "structure"), outpour.export(store, fresh, out, job, threads)],
                 prepare=forget, bound="cold", validates="UTF-8, balance, string ends")
        self.add("warm", job, threads, [outpour.export(store, self.index_dir, out, job, threads)], bound="warm")
        self.add("warm, synced", job, threads, [outpour.export(store, self.index_dir, out, job, threads, sync=True)],
                 bound="warm")

    def indexes(self):
        """What warm costs beforehand."""
        fresh = f"{self.work}/index-cold"
        for threads in self.options.threads:
            step = self.outpour.index(self.store.directory, fresh, threads)
            self.rows.append(Row("outpour", "index", "store", threads, [step],
                                 prepare=lambda: shutil.rmtree(fresh, ignore_errors=True)))

    def copies(self, job):
        """`cp` of the files that the job gives: the yardstick of people."""
        out, files = f"{self.work}/out/cp", self.files(job)
        # `cp` a second time with its files synced, as an export without --no-sync leaves them.
        script = 'out=$1; shift; cp "$@" "$out" && cd "$out" && sync *'
        for mode, step in (("cp", ["cp", *files, out]), ("cp, synced", ["sh", "-c", script, "sh", out, *files])):
            self.rows.append(Row("cp", mode, job.name, 1, [step], out=out, expected=self.answers[job.name],
                                 bound="warm", repeats=5 if job.name == "1" else 1))

    def single(self, job, directory, index_dir, mode, expected):
        """One patient, from start to exit: wall time, so without the sampler beside it."""
        out = f"{self.work}/out/outpour"
        self.add(mode, job, 1, [self.outpour.export(directory, index_dir, out, job, 1)], expected=expected,
                 sample=False, repeats=5)

    def packed(self):
        """A packed store, its exports, and those of the same store with a delta beside it."""
        directory, index = f"{self.work}/packed", f"{self.work}/index-packed"
        shutil.rmtree(directory, ignore_errors=True)
        pack = Row("outpour", "pack", "store", 1, [self.outpour.pack(self.store.directory, directory, 1)],
                   out=None, bound=None, once=True)
        shutil.rmtree(index, ignore_errors=True)
        known = subprocess.run([self.outpour.binary, "pack", "--help"], capture_output=True)
        if known.returncode:
            raise Skip("this outpour has no `pack`")
        run(pack, self.log)
        if pack.words:
            raise Skip(pack.words)
        self.rows.append(pack)
        self.do(self.outpour.index(directory, index, 1), "index of the packed store")
        readable = zstd.available()
        if not readable:
            self.notes.append("packed exports to .ndjson.zst are not compared, so not counted: no libzstd here")
        out = f"{self.work}/out/outpour"
        for threads in self.options.threads:
            for job in self.jobs:
                if readable:
                    step = self.outpour.export(directory, index, out, job, threads, "zstd")
                    self.add("packed to zst", job, threads, [step], bound="warm")
                self.add("packed to plain", job, threads, [self.outpour.export(directory, index, out, job, threads)],
                         bound="warm")
        everybody = [job for job in self.jobs if job.name == "all"]
        if not (everybody and readable):
            return
        job = everybody[0]
        frames = f"{self.work}/reference/frames"
        empty(frames)
        self.do(self.outpour.export(directory, index, frames, job, 1, "zstd"), "export of frames")
        mixed, mixed_index = f"{self.work}/packed-delta", f"{self.work}/index-packed-delta"
        shutil.rmtree(mixed, ignore_errors=True)
        shutil.copytree(directory, mixed, copy_function=os.link)
        changes = stores.delta(self.store, f"{mixed}/delta")
        shutil.rmtree(mixed_index, ignore_errors=True)
        self.do(self.outpour.index(mixed, mixed_index, 1), "index of the packed store with a delta")
        for threads in self.options.threads:
            self.add("packed and delta to zst", job, threads,
                     [self.outpour.export(mixed, mixed_index, out, job, threads, "zstd")],
                     bound="warm", expected=stores.with_delta(self.answers["all"], changes))

    def packed_in_gzip(self):
        """Exports to gzip: joined from a store packed in it, beside those that code the rows of the plain files."""
        directory, index = f"{self.work}/packed-gzip", f"{self.work}/index-packed-gzip"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(index, ignore_errors=True)
        pack = Row("outpour", "pack in gzip", "store", 1, [self.outpour.pack(self.store.directory, directory, 1, "gzip")],
                   out=None, bound=None, once=True)
        run(pack, self.log)
        if pack.words:
            raise Skip(pack.words)
        self.rows.append(pack)
        self.do(self.outpour.index(directory, index, 1), "index of the store packed in gzip")
        out = f"{self.work}/out/outpour"
        for threads in self.options.threads:
            for job in self.jobs:
                self.add("packed to gzip, joined", job, threads,
                         [self.outpour.export(directory, index, out, job, threads, "gzip")], bound="warm")
                self.add("plain to gzip, coded", job, threads,
                         [self.outpour.export(self.store.directory, self.index_dir, out, job, threads, "gzip")], bound="warm")

    def from_disk(self):
        """Exports whose index is there and of which no page is in memory, beside `cp` of the answer's files."""
        out = f"{self.work}/out/outpour"
        places = {"indexed": (self.store.directory, self.index_dir, "none"),
                  "packed to gzip": (f"{self.work}/packed-gzip", f"{self.work}/index-packed-gzip", "gzip")}
        for job in self.jobs:
            for what, (directory, index, compress) in places.items():
                if not os.path.isdir(index):
                    continue
                for threads in self.options.threads:
                    self.add(f"{what}, from disk", job, threads,
                             [self.outpour.export(directory, index, out, job, threads, compress)], bound="warm",
                             prepare=lambda directory=directory, index=index: drop(directory, index),
                             restore=lambda directory=directory, index=index: fetch(directory, index))
            files, copies, answer = self.files(job), f"{self.work}/out/cp", f"{self.work}/reference/{job.name}"
            self.rows.append(Row("cp", "cp, from disk", job.name, 1, [["cp", *files, copies]], out=copies,
                                 expected=self.answers[job.name], bound="warm",
                                 prepare=lambda answer=answer: drop(answer), restore=lambda answer=answer: fetch(answer)))

    def eighth(self):
        """One patient of a store an eighth as large: what an export costs must not go by the store."""
        directory, index = f"{self.work}/eighth", f"{self.work}/index-eighth"
        empty(directory)
        self.do(self.outpour.export(self.store.directory, self.index_dir, directory,
                                    Job("eighth", "", self.groups["eighth"]), 1), "export of an eighth")
        for path in glob.glob(f"{directory}/*"):
            if not path.endswith(".ndjson"):
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        shutil.rmtree(f"{directory}/.outpour-job", ignore_errors=True)
        self.warm(directory, index)
        self.single(self.one, directory, index, "warm, an eighth of the store", self.answers["one"])

    def arranged(self):
        """Everybody from one file with all types mixed, and 1 % from files in order of arrival."""
        out = f"{self.work}/out/outpour"
        for name, wanted in (("mixed", "all"), ("arrival", "1")):
            for job in self.jobs:
                if job.name != wanted:
                    continue
                directory, index = f"{self.work}/{name}", f"{self.work}/index-{name}"
                shutil.rmtree(directory, ignore_errors=True)
                stores.arrange(self.store, directory, name == "mixed")
                self.warm(directory, index)
                title = "one mixed file" if name == "mixed" else "order of arrival"
                # Read once a round only: by then other rows may have pushed it out of memory.
                self.add(f"warm, {title}", job, 1, [self.outpour.export(directory, index, out, job, 1)], bound="warm",
                         prepare=lambda directory=directory, index=index: fetch(directory, index),
                         repeats=5 if wanted == "1" else 1)

    # The physical bounds.

    def bound(self, *argv):
        """A program of `bounds.py`: {bytes, cpu, least}."""
        done = subprocess.run([sys.executable, f"{HERE}/bounds.py", *argv], capture_output=True, text=True)
        if done.returncode:
            raise Skip(f"bounds {argv[0]}: {done.stderr.strip().splitlines()[-1]}")
        return json.loads(done.stdout)
