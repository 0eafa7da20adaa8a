"""The stores that the jobs run on: made by `outpour synth` or brought along, and what is derived from one: Groups, an
instant that halves it, the same lines in order of arrival, and a delta that supersedes one row in a hundred.

A store here is a directory of plain `.ndjson` files, one type a file, without updates or deletions: the rivals are
spared the search for the current version, which outpour makes all the same.
"""

import collections
import json
import os
import random
import re
from datetime import datetime, timezone

from compare import MODULUS, line_hash
from jobs import PATIENT_ELEMENT

UPDATED = re.compile(rb'"lastUpdated":"([^"]*)"')
Store = collections.namedtuple("Store", "directory files bytes rows patients")


def describe(directory):
    """Its files by type, its bytes, rows and patients' ids. One file a type, or an error."""
    files, total, rows, patients = [], 0, 0, []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if name.startswith(".") or not name.endswith(".ndjson"):
            continue
        with open(path, "rb") as file:
            first = file.readline()
            if not first.strip():
                continue
            kind = json.loads(first)["resourceType"]
            file.seek(0)
            if kind == "Patient":
                patients = [json.loads(line)["id"] for line in file]
                rows += len(patients)
            else:
                while block := file.read(8 << 20):
                    rows += block.count(b"\n")
        if kind in dict(files):
            raise SystemExit(f"{directory}: several files of {kind}; the rivals' jobs want one file a type")
        files.append((kind, path))
        total += os.path.getsize(path)
    if not patients:
        raise SystemExit(f"{directory}: no plain .ndjson file of Patient rows")
    return Store(directory, files, total, rows, patients)


def write_group(path, patients):
    members = [{"entity": {"reference": f"Patient/{patient}"}} for patient in patients]
    group = {"resourceType": "Group", "id": "kit", "type": "person", "actual": True, "member": members}
    with open(path, "w") as file:
        json.dump(group, file)
    return path


def groups(store, directory):
    """Group files by share: `one`, `1`, `10`, `eighth`, `all`. Members are drawn at random, always the same ones."""
    os.makedirs(directory, exist_ok=True)
    drawn = random.Random(1).sample(store.patients, len(store.patients))
    sizes = {"one": 1, "1": max(1, len(drawn) // 100), "10": max(1, len(drawn) // 10),
             "eighth": max(1, len(drawn) // 8), "all": len(drawn)}
    return {name: write_group(f"{directory}/{name}.json", drawn[:size]) for name, size in sizes.items()}


def _updated(line):
    return datetime.fromisoformat(UPDATED.search(line)[1].decode())


def middle_instant(store):
    """The whole second before which half of the Encounters were updated."""
    path = dict(store.files).get("Encounter") or store.files[0][1]
    with open(path, "rb") as file:
        instants = sorted(_updated(line) for line in file)
    return instants[len(instants) // 2].astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def arrange(store, directory, mixed):
    """The same lines by lastUpdated, as a server's log would have them: one type a file, or all in one file."""
    os.makedirs(directory)
    batches = [store.files] if mixed else [[file] for file in store.files]
    for batch in batches:
        places = []
        sources = [open(path, "rb") for _, path in batch]
        for number, source in enumerate(sources):
            at = 0
            for line in source:
                places.append((_updated(line).timestamp(), number, at, len(line)))
                at += len(line)
        places.sort()
        with open(f"{directory}/{'all' if mixed else batch[0][0]}.ndjson", "wb", buffering=1 << 20) as out:
            for _, number, at, length in places:
                out.write(os.pread(sources[number].fileno(), length, at))


def delta(store, directory):
    """A newer version of every hundredth row. Gives {type: [bytes more, hash difference]} for the comparison."""
    os.makedirs(directory, exist_ok=True)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT00:00:00Z").encode()
    changes = {}
    for kind, path in store.files:
        if kind not in PATIENT_ELEMENT:
            continue
        size = difference = 0
        with open(path, "rb") as source, open(f"{directory}/{kind}.delta.ndjson", "wb") as out:
            for number, line in enumerate(source):
                if number % 100:
                    continue
                newer = UPDATED.sub(b'"lastUpdated":"' + now + b'"', line, count=1)
                out.write(newer)
                size += len(newer) - len(line)
                difference += line_hash(newer.rstrip(b"\n")) - line_hash(line.rstrip(b"\n"))
        changes[kind] = (size, difference)
    return changes


def with_delta(content, changes):
    """What the content of an export of everybody becomes under a delta."""
    changed = {}
    for kind, (count, size, total) in content.items():
        more, difference = changes.get(kind, (0, 0))
        changed[kind] = [count, size + more, f"{(int(total, 16) + difference) % MODULUS:032x}"]
    return changed
