#!/usr/bin/env python3
"""The same exports by outpour, DuckDB, ClickHouse and Python with orjson, in turns, with equal answers: a table, a plot.

    cargo build --release
    python3 benches/rivals/run.py --install target/rivals/venv     # once: installs into that directory, says what
    python3 benches/rivals/run.py                                  # 4,000 patients, about 2 GB; half an hour

Needs Python 3.11 and nothing else of its own. Installs nothing unless told to. The method and what it is biased to
stand in benches/README.md.
"""

import argparse
import datetime
import importlib
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import measure  # noqa: E402
import plot  # noqa: E402
import probe  # noqa: E402
import rows as running  # noqa: E402
import table  # noqa: E402
import targets  # noqa: E402
import zstd  # noqa: E402
from kit import HERE, RIVALS, Kit  # noqa: E402

PINNED = {"duckdb": "duckdb==2.0.0", "chdb": "chdb==4.4.0", "orjson": "orjson==3.13.0", "polars": "polars==2.1.0"}
BOUND_WRITE_BYTES = 512 << 20
TRIALS = 2
MARKS = ("<!-- rivals: written by benches/rivals/run.py --readme -->", "<!-- end of rivals -->")
OWN_MARKS = ("<!-- outpour: written by benches/rivals/run.py --only outpour --readme -->", "<!-- end of outpour -->")


def options(words):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    home = os.path.dirname(os.path.dirname(HERE))
    commas = lambda text: [word for word in text.split(",") if word]
    parser.add_argument("--patients", type=int, default=4000, help="size of the store that `outpour synth` makes (4000: 2 GB)")
    parser.add_argument("--store", help="a store of plain .ndjson files, one type a file, instead of making one")
    parser.add_argument("--only", type=commas, help=f"engines: outpour,{','.join(RIVALS)} (default: all that are installed)")
    parser.add_argument("--jobs", type=commas, default=["1", "10", "all"], help="of 1,10,all (default: all three)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=commas, help="thread counts (default: 1 and all processors)")
    parser.add_argument("--quick", action="store_true", help="100 patients, one round, no extra stores: a smoke test")
    parser.add_argument("--no-extras", dest="extras", action="store_false", help="without stores in other orders and sizes")
    parser.add_argument("--outpour", default=f"{home}/target/release/outpour", help="the binary to measure")
    parser.add_argument("--work", default=f"{home}/target/rivals", help="stores, indexes and answers; about six times the store")
    parser.add_argument("--record", help="directory for table, JSON and plot (default: benches/record; --quick: in --work)")
    parser.add_argument("--readme", action="store_true", help="also put the few rows of this run into README.md")
    parser.add_argument("--python", help="the rivals' Python (default: that of --work/venv, or this one)")
    parser.add_argument("--probe", action="store_true", help="put damaged lines to every engine, print who takes which, and stop")
    parser.add_argument("--install", metavar="VENV_DIR", help="make a virtual environment there, install the rivals, and stop")
    chosen = parser.parse_args(words)
    if chosen.quick:
        chosen.patients, chosen.rounds, chosen.extras = min(chosen.patients, 100), 1, False
    chosen.threads = sorted({int(number) for number in chosen.threads or (1, os.cpu_count())})
    chosen.record = chosen.record or (f"{chosen.work}/record" if chosen.quick else f"{home}/benches/record")
    venv = f"{chosen.work}/venv/bin/python"
    chosen.python = chosen.python or (venv if os.path.exists(venv) else sys.executable)
    unknown = [name for name in (chosen.only or []) if name not in ["outpour", *RIVALS]]
    if unknown or [job for job in chosen.jobs if job not in ("1", "10", "all")]:
        parser.error(f"unknown: {', '.join(unknown) or chosen.jobs}")
    return chosen


def install(directory):
    """On explicit request only: a virtual environment with the rivals' packages."""
    for command in ([sys.executable, "-m", "venv", directory],
                    [f"{directory}/bin/python", "-m", "pip", "install", *PINNED.values()]):
        print("+", " ".join(command), flush=True)
        subprocess.run(command, check=True)
    print(f"now: {sys.argv[0]} --python {directory}/bin/python")


def engines(chosen):
    """Versions of what is there; ends the program when a rival that must run is missing."""
    asked = chosen.only
    chosen.only = asked or ["outpour", *RIVALS[:-1]]
    kit = Kit(chosen)
    if not os.access(chosen.outpour, os.X_OK):
        raise SystemExit(f"{chosen.outpour} is not there: `cargo build --release`, or --outpour PATH")
    told = subprocess.run([chosen.outpour, "--version"], capture_output=True, text=True).stdout.split()
    versions, missing = {"outpour": told[1] if len(told) > 1 else "?"}, []
    for name in kit.rivals:
        engine, version = importlib.import_module(f"engines.{name}"), kit.version(name)
        if version:
            versions[engine.TITLE] = version
        elif asked or engine.REQUIRED:
            missing.append(name)
        else:
            kit.notes.append(f"{engine.TITLE}: not installed")
    if missing:
        packages = [PINNED[package] for name in missing for package in importlib.import_module(f"engines.{name}").PACKAGES]
        words = f"missing: {', '.join(missing)}."
        if packages:
            words += (f"\n  into this Python:  {chosen.python} -m pip install {' '.join(packages)}"
                      f"\n  or apart:          {sys.argv[0]} --install {chosen.work}/venv")
        rest = [name for name in chosen.only if name not in missing]
        raise SystemExit(words + (f"\n  or leave them out: --only {','.join(rest)}" if rest else ""))
    kit.rivals = [name for name in kit.rivals if importlib.import_module(f"engines.{name}").TITLE in versions]
    versions["Python"] = "%d.%d.%d" % sys.version_info[:3]
    versions["libzstd"] = zstd.version() or "missing"
    return kit, versions


def trials(kit):
    """Times every formulation of every rival on the real job, one thread. Gives the record and the fastest of each."""
    job = next((job for job in kit.jobs if job.name == "10"), kit.jobs[0])
    record, fastest = [], {}
    tried = [(name, formulation, what, kit.rival(name, formulation, job, 1, expected=kit.answers[job.name]))
             for name in kit.rivals for formulation, what in importlib.import_module(f"engines.{name}").FORMULATIONS.items()]
    several = {name for name, _, _, _ in tried if sum(1 for other in tried if other[0] == name) > 1}
    for _ in range(1 if kit.options.quick else TRIALS):
        for name, _, _, row in tried:
            if name in several:
                running.run(row, kit.log)
    for name, formulation, what, row in tried:
        cpu = row.least("cpu") if row.counts else None
        record.append({"engine": row.engine, "name": formulation, "what": what, "cpu": cpu, "words": row.words,
                       "validates": row.validates, "kept": False})
        if name not in several and not row.words:
            fastest[name] = (0, formulation, record[-1])
        elif cpu is not None and (name not in fastest or cpu < fastest[name][0]):
            fastest[name] = (cpu, formulation, record[-1])
    for name in [name for name in kit.rivals if name not in fastest]:
        kit.rivals.remove(name)
        kit.notes.append(f"{name}: no formulation gave the answer: "
                         + next(row.words for tried_name, _, _, row in tried if tried_name == name))
    for _, _, entry in fastest.values():
        entry["kept"] = True
    return record, {name: formulation for name, (_, formulation, _) in fastest.items()}


def load(kit):
    """Rivals that can keep a store of their own fill it once, on one thread."""
    import shutil
    if kit.options.quick:
        return
    for name in kit.rivals:
        if not getattr(importlib.import_module(f"engines.{name}"), "LOADS", False):
            continue
        database = f"{kit.work}/database-{name}"
        shutil.rmtree(database, ignore_errors=True)
        if os.path.exists(database):
            os.remove(database)
        row = kit.rival(name, "load", kit.one, 1, "load its own tables", once=True)
        row.job = "store"
        running.run(row, kit.log)
        kit.rows.append(row)


def measure_all(kit, say):
    """All rows in turns, so that the machine's moods hit all of them; the bounds in every round."""
    costs = {"read": [], "write": [], "write_new": [], "inflate": [], "touch": []}
    try:
        for number in range(kit.options.rounds):
            one_round(kit, say, number, costs)
    except KeyboardInterrupt:
        kit.notes.append(f"interrupted in round {number + 1} of {kit.options.rounds}")
    # What bounds is the machine at its best; what a promise counts with is what it did as a rule.
    least = ("read", "write")
    return {name: (min if name in least else targets.median)(values) if values else None for name, values in costs.items()}


def one_round(kit, say, number, costs):
    """The store into the page cache, the bounds, every row."""
    frames = f"{kit.work}/reference/frames"
    say(f"round {number + 1} of {kit.options.rounds}")
    for _, path in kit.store.files:
        with open(path, "rb", buffering=0) as file:
            while file.read(8 << 20):
                pass
    told = kit.bound("read", *[path for _, path in kit.store.files])
    costs["read"].append(told["cpu"] / told["bytes"])
    target = f"{kit.work}/scratch/written"
    told = kit.bound("write", str(min(BOUND_WRITE_BYTES, kit.store.bytes)), target)
    os.remove(target)
    costs["write"].append(told["least"] / told["bytes"])
    costs["write_new"].append(told["cpu"] / told["bytes"])
    told = kit.bound("touch", str(BOUND_WRITE_BYTES))
    costs["touch"].append(told["cpu"] / told["bytes"])
    if os.path.isdir(frames):
        files = [f"{frames}/{name}" for name in os.listdir(frames) if name.endswith(".zst")]
        told = kit.bound("zstd", *files)
        costs["inflate"].append(told["cpu"] / told["bytes"])
    # Each round begins elsewhere, so that nobody always follows the same one.
    first = number * len(kit.rows) // max(kit.options.rounds, 1)
    for row in kit.rows[first:] + kit.rows[:first]:
        before = len(row.samples)
        running.run(row, kit.log)
        if row.words:
            say(f"  {row.key}: {row.words}")
        elif len(row.samples) > before:
            sample = row.samples[-1]
            say(f"  {row.key}: wall {sample.wall:.3f} s, CPU {sample.cpu:.3f} s")


def fill_readme(run, name, marks, summary):
    """Puts the few rows of this run between the marks of README.md."""
    home = os.path.dirname(os.path.dirname(HERE))
    with open(f"{home}/README.md") as file:
        before, rest = file.read().split(marks[0], 1)
    after = rest.split(marks[1], 1)[1]
    with open(f"{home}/README.md", "w") as file:
        file.write(f"{before}{marks[0]}\n{summary(run, os.path.relpath(name, home))}\n{marks[1]}{after}")


def main(words):
    chosen = options(words)
    if chosen.install:
        return install(chosen.install)
    os.makedirs(chosen.work, exist_ok=True)
    say = lambda text: print(text, file=sys.stderr, flush=True)
    kit, versions = engines(chosen)
    if chosen.probe:
        return print(probe.table(kit))
    run = {"date": datetime.date.today().isoformat(), "versions": versions, "rounds": chosen.rounds,
           "machine": table.machine(chosen.work)}
    say("making the store, the index and the reference answers")
    try:
        kit.prepare()
    except running.Skip as words:
        raise SystemExit(f"no store: {words}; --store DIR uses one of your own")
    run["store"] = {"bytes": kit.store.bytes, "rows": kit.store.rows, "patients": len(kit.store.patients)}
    say("trying the formulations")
    run["formulations"], fastest = trials(kit)
    load(kit)
    kit.plan(fastest)
    bounds = measure_all(kit, say)
    size = sum(os.path.getsize(f"{kit.index_dir}/{name}") for name in os.listdir(kit.index_dir))
    titles = [importlib.import_module(f"engines.{name}").TITLE for name in kit.rivals]
    run["targets"] = [line.as_dict() for line in
                      targets.lines(kit, titles, bounds["inflate"], bounds["write_new"], size / kit.store.bytes)]
    gigabytes = lambda cost: f"{1 / cost / table.GB:.2f} GB per CPU s"
    run["bounds"] = bounds
    run["bounds_words"] = [f"{what} {gigabytes(bounds[name])}" for name, what in
                           (("read", "`memchr` over the store"), ("write", "`write(2)` to a file in memory lately used"),
                            ("write_new", "the same in new memory"),
                            ("inflate", "libzstd over the packed frames"),
                            ("touch", "first touch of new memory")) if bounds[name]]
    run["validates"] = {f"outpour, {row.mode}" if row.engine == "outpour" else row.engine: row.validates
                        for row in kit.rows if row.validates}
    run["losses"] = table.losses(kit, titles)
    run["rows"] = [row.as_dict() for row in kit.rows]
    run["notes"], run["load_end"] = kit.notes, [round(load, 2) for load in os.getloadavg()]
    os.makedirs(chosen.record, exist_ok=True)
    # A run without rivals has a record of its own, and rows of its own in the README: nothing of theirs is replaced.
    alone = not kit.rivals
    name = f"{chosen.record}/{run['date']}-{'outpour' if alone else 'rivals'}"
    text = table.markdown(run, kit, bounds, titles)
    print(text)
    with open(f"{name}.md", "w") as file:
        file.write(text)
    with open(f"{name}.json", "w") as file:
        json.dump(run, file, indent=1)
    picture = None if alone else plot.of_run(run, kit, bounds)
    if picture:
        with open(f"{name}.svg", "w") as file:
            file.write(picture)
    if chosen.readme:
        fill_readme(run, name, *((OWN_MARKS, table.own_summary) if alone else (MARKS, table.summary)))
    say(f"saved: {name}.md, .json{', .svg' if picture else ''}")
    wrong = [row for row in kit.rows if row.words]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
