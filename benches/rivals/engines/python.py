"""A loop in Python: orjson parses every line whole, dictionaries are asked. With several threads it forks, one process
for each share of the bytes, since Python runs one thread at a time.
"""

import gc
import mmap
import os
from datetime import datetime

FORMULATIONS = {
    "lines": "iterate over the file, `loads` each line",
    "blocks": "read 8 MiB, split at newlines, `loads` each line",
    "arrays": "read 8 MiB, join its lines to one array, `loads` once",
}
BLOCK_BYTES = 8 << 20
FLUSH_BYTES = 1 << 20


def _span(path, first, last):
    """Blocks of whole lines: those that begin in bytes first..last of the file."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        def line_start(at):
            return at and (data.find(b"\n", at - 1) + 1 or len(data))

        at, end = line_start(first), line_start(last)
        while at < end:
            cut = line_start(min(at + BLOCK_BYTES, end))
            yield data[at:cut]
            at = cut


def _records(path, first, last, formulation, loads):
    """(line without its end, value) of each line of a span."""
    if formulation == "lines" and first == 0 and last == os.path.getsize(path):
        with open(path, "rb") as file:
            for line in file:
                line = line.rstrip(b"\n")
                yield line, loads(line)
        return
    for block in _span(path, first, last):
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()
        if formulation != "arrays":
            for line in lines:
                yield line, loads(line)
            continue
        values = loads(b"[" + b",".join(lines) + b"]")
        if len(values) != len(lines):
            raise ValueError(f"{path}: a line is not one value")
        yield from zip(lines, values)


def _pour(task, loads, kind, element, path, first, last):
    members = set(task.members)
    since = task.since and datetime.fromisoformat(task.since)
    # Lines are appended whole, so that processes can share the file.
    out = os.open(task.target(kind), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    held, size = [], 0
    for line, value in _records(path, first, last, task.formulation, loads):
        if element:
            named = value.get(element)
            if not named or named.get("reference") not in members:
                continue
        elif "Patient/" + value["id"] not in members:
            continue
        if since and datetime.fromisoformat(value["meta"]["lastUpdated"]) <= since:
            continue
        held.append(line)
        size += len(line) + 1
        if size > FLUSH_BYTES:
            _write(out, b"\n".join(held) + b"\n")
            held, size = [], 0
    if held:
        _write(out, b"\n".join(held) + b"\n")
    os.close(out)


def _write(out, data):
    if os.write(out, data) != len(data):
        raise OSError("short write")


def pour(task, loads):
    from jobs import PATIENT_ELEMENT
    # Values hold no cycles; looking for them takes a third of the time.
    gc.disable()
    sizes = [(kind, path, os.path.getsize(path)) for kind, path in task.files]
    if task.threads == 1:
        for kind, path, size in sizes:
            _pour(task, loads, kind, PATIENT_ELEMENT[kind], path, 0, size)
        return
    children = []
    for worker in range(task.threads):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for kind, path, size in sizes:
                    first, last = size * worker // task.threads, size * (worker + 1) // task.threads
                    if first < last:
                        _pour(task, loads, kind, PATIENT_ELEMENT[kind], path, first, last)
                code = 0
            except BaseException as error:
                print(repr(error), flush=True)
            finally:
                os._exit(code)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        raise SystemExit(1)
