"""Puts a load on a release `outpour serve` over loopback, and measures.

    cargo build --release
    python3 benches/load/run.py [--only crowd,kickoff,manifest,download,collect,memory,readers] [--quick]
                                [--record benches/record]

crowd     1,000 clients, each with a job of its own, poll about once a second (as Retry-After says) while 64 clients
          download and exports run, for --seconds; answers by status, latency of a poll, memory of the server over time
kickoff   time of a kick-off beside running exports, --rate a second for --kickoff-seconds, each deleted afterwards;
          without and with `data.sync`
manifest  from sending a kick-off to its manifest on the disk: Group `ten` of the bundled store, its index warm
download  a file of about 1 GiB beside nginx with sendfile, by benches/download/run.py; and the same in gzip
collect   from sending a kick-off to the last byte of the last file, of everybody and of a Group of 10 %, over one and five
          connections: from a plain store as identity, from a store packed in gzip, and coded in gzip for the export; the
          ready files beside nginx
memory    the most RssAnon of exports in each compression, of the command and of the service
readers   what HTTP clients of other languages make of joined gzip files, and of a packed store's own, row by row

Everything is bounded in count and time. Needs Python 3.11, wrk for `crowd`, nginx for `download`; nothing is installed.
The store is `outpour synth`'s; scratch (some 7 GB) lies in --scratch and is removed at the end.
Ends with 1 when a promise is not kept: machines that do other things break those of time.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from collect import collect, memory  # noqa: E402
from fetch import downloads  # noqa: E402
from readers import readers  # noqa: E402
from service import BASE, Client, Exporting, Service  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CLIENTS, DOWNLOADS = 1000, 64


def spread(seconds):
    """Median, 99th percentile and maximum, in milliseconds."""
    ordered = sorted(seconds)
    at = lambda share: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2)
    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)}


def crowd(args, store):
    """1,000 pollers and 64 downloads."""
    limits = {"active_per_client": CLIENTS + 100, "active": CLIENTS + 100}
    with Service(args.binary, store.path, store.index, args.scratch, {"jobs": limits}) as service:
        client = Client(service)
        whole = client.kick_off("/$export")
        files = [file["url"] for file in client.finished(whole, 1)["output"]]
        begun = time.monotonic()
        jobs = [client.kick_off("/Group/one/$export") for _ in range(CLIENTS)]
        kicked = time.monotonic() - begun
        listed = service.home / "polled"
        listed.write_text("\n".join(jobs) + "\n")
        out = service.data / "files" / whole.rsplit("/", 1)[1] / "out"
        results = multiprocessing.SimpleQueue()
        loader = multiprocessing.Process(
            target=lambda: results.put(downloads(service.port, files, out, DOWNLOADS, args.seconds)))
        memory = [service.memory()]
        with Exporting(service, 1) as exporting:
            loader.start()
            wrk = subprocess.Popen(
                ["wrk", "-t2", f"-c{CLIENTS}", f"-d{args.seconds}s", "--timeout", "60s", "-s", HERE / "poll.lua",
                 f"http://127.0.0.1:{service.port}", "--", listed, "2"], stdout=subprocess.PIPE, text=True)
            begun = time.monotonic()
            while wrk.poll() is None and time.monotonic() < begun + args.seconds + 60:
                memory.append(service.memory())
                time.sleep(0.5)
            load = os.getloadavg()[0]
            said = wrk.communicate(timeout=5)[0]
        polled = json.loads(next(line[5:] for line in said.splitlines() if line.startswith("JSON ")))
        loaded = results.get()
        loader.join()
    anonymous = [at[0] for at in memory]
    half = len(anonymous) // 2
    row = {
        "seconds": args.seconds, "clients polling": CLIENTS, "downloading": DOWNLOADS, "polls": polled,
        "downloads": loaded, "exports beside": exporting.done, "kick-offs before, a second": round(CLIENTS / kicked),
        "RssAnon MiB": {"before": anonymous[0], "first half, most": max(anonymous[:half]),
                        "second half, most": max(anonymous[half:])},
        "RssAnon MiB, a value each 10 s": anonymous[::20],
        "threads, most": max(at[1] for at in memory), "open files, most": max(at[2] for at in memory), "load": load,
    }
    broken = [f"{polled[name]} polls: {name}" for name in ("connect", "read", "write", "late") if polled[name]]
    broken += [f"{count} polls answered {status}" for status, count in polled["answers"].items()
               if status not in ("200", "202", "429")]
    broken += loaded["errors"] + service.errors[:5] + ([exporting.failed] if exporting.failed else [])
    if max(anonymous[half:]) > 1.25 * max(anonymous[:half]) + 16:
        broken.append("memory grows from the first half to the second")
    return row, broken


def kickoff(args, store):
    """Latency of kick-offs, without and with sync."""
    rows, broken = {}, []
    for sync in (False, True):
        config = {"data": {"sync": sync}, "jobs": {"active_per_client": 10_000, "active": 10_000},
                  "limits": {"polls_per_second": 1000, "polls_burst": 1000}, "ig": {"first_poll_in_progress": False}}
        with Service(args.binary, store.path, store.index, args.scratch, config) as service:
            count = args.rate * args.kickoff_seconds
            answered, scheduled, made, over = [], [], [], threading.Event()
            failed = []

            def send(at, begun):
                try:
                    client = Client(service)
                    for number in range(at, count, 4):
                        due = begun + number / args.rate
                        time.sleep(max(0, due - time.perf_counter()))
                        sent = time.perf_counter()
                        job = client.kick_off("/Group/one/$export")
                        now = time.perf_counter()
                        answered.append(now - sent)
                        scheduled.append(now - due)
                        made.append(job)
                except (Exception, SystemExit) as error:
                    failed.append(str(error))

            def remove():
                client = Client(service)
                while not over.is_set() or made:
                    if made:
                        if (status := client.ask("DELETE", made.pop(0))[0]) != 202:
                            failed.append(f"DELETE was answered {status}")
                    else:
                        time.sleep(0.01)

            with Exporting(service, 0.02) as exporting:
                remover = threading.Thread(target=remove)
                remover.start()
                begun = time.perf_counter()
                senders = [threading.Thread(target=send, args=(at, begun)) for at in range(4)]
                for thread in senders:
                    thread.start()
                for thread in senders:
                    thread.join()
                took = time.perf_counter() - begun
                over.set()
                remover.join()
        rows["sync" if sync else "no sync"] = {
            **spread(answered), "from schedule": spread(scheduled), "kick-offs": len(answered),
            "a second": round(len(answered) / took, 1), "exports beside": exporting.done, "load": os.getloadavg()[0]}
        broken += failed[:5] + service.errors[:5] + ([exporting.failed] if exporting.failed else [])
    if rows["no sync"]["p99_ms"] >= 50:
        broken.append(f"a kick-off without sync takes {rows['no sync']['p99_ms']} ms at p99: promised are 50")
    return rows, broken


def manifest(args, _):
    """From kick-off to the manifest on the disk."""
    rows, broken = {}, []
    index = Path(args.scratch, "index-100")
    for sync in (False, True):
        with Service(args.binary, ROOT / "testdata/stores/synthea-r4-100", index, args.scratch,
                     {"data": {"sync": sync}}) as service:
            client, took = Client(service), []
            for number in range(21):
                if number == 1:
                    before = service.cpu_seconds()
                begun = time.perf_counter()
                job = client.kick_off("/Group/ten/$export")
                path = service.data / "files" / job.rsplit("/", 1)[1] / "out" / "manifest.json"
                while not path.exists():
                    if time.perf_counter() > begun + 30:
                        raise SystemExit("no manifest after 30 s")
                    time.sleep(0.0005)
                if number > 0:  # the first one warms up
                    took.append(time.perf_counter() - begun)
                json.loads(path.read_bytes())
                client.ask("DELETE", job)
            cpu = service.cpu_seconds() - before
        rows["sync" if sync else "no sync"] = {
            "median_ms": round(statistics.median(took) * 1000, 1), "max_ms": round(max(took) * 1000, 1),
            "times": len(took),
            "server CPU ms a job": round(cpu / len(took) * 1000, 1), "load": os.getloadavg()[0]}
        broken += service.errors[:5]
    if rows["no sync"]["median_ms"] >= 100:
        broken.append(f"the manifest takes {rows['no sync']['median_ms']} ms: promised are 100")
    return rows, broken


def download(args, _):
    """One file of about 1 GiB, and the same in gzip."""
    store = Store(args, args.download_patients)
    row, broken = {}, []
    for coding, compress in (("identity", "none"), ("gzip", "gzip")):
        config = {"data": {"sync": False}, "files": {"max_bytes": 8 << 30, "compress": compress}}
        with Service(args.binary, store.path, store.index, args.scratch, config) as service:
            client = Client(service)
            job = client.kick_off("/$export?_type=ExplanationOfBenefit")
            url = client.finished(job, 1)["output"][0]["url"]
            file = next((service.data / "files" / job.rsplit("/", 1)[1] / "out").glob("ExplanationOfBenefit*"))
            size = file.stat().st_size
            # Of what is short several are taken for one figure.
            repeat = max(1, min(20, (1 << 30) // size)) if coding == "gzip" else 1
            ran = subprocess.run(
                [sys.executable, HERE.parent / "download/run.py", "--file", file, "--ours", f"outpour={url}", "--pid",
                 str(service.pid), "--rounds", str(args.rounds), "--repeat", str(repeat), "--json"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
        row[coding] = {"bytes": size, "times": repeat, "servers": json.loads(ran.stdout) if ran.stdout else [],
                       "load": os.getloadavg()[0]}
        broken += ([f"{coding}: {ran.stderr.strip()}"] if ran.returncode else []) + service.errors[:5]
    shutil.rmtree(store.path)
    return row, broken


class Store:
    """A store of `outpour synth`, and its index."""

    def __init__(self, args, patients):
        self.path, self.index = Path(args.scratch, f"store-{patients}"), Path(args.scratch, f"index-{patients}")
        for command in (["synth", "--out", self.path, "--patients", str(patients), "--no-sync"],
                        ["index", "--store", self.path, "--index-dir", self.index]):
            subprocess.run([args.binary, *command, "--progress", "never"], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)


def table(name, value, indent=0):
    """The nested figures of a measurement, a line each."""
    for key, of in value.items():
        if isinstance(of, dict):
            print("  " * indent + f"  {key}")
            table(name, of, indent + 1)
        elif isinstance(of, list) and of and isinstance(of[0], dict):
            for row in of:
                print("  " * indent + "  " + ", ".join(f"{column} {cell}" for column, cell in row.items()))
        else:
            print("  " * indent + f"  {key:32} {of}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measures = {"crowd": crowd, "kickoff": kickoff, "manifest": manifest, "download": download, "collect": collect,
                "memory": memory, "readers": readers}
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/outpour")
    parser.add_argument("--only", default=",".join(measures))
    parser.add_argument("--patients", type=int, default=600, help="of the store of crowd and kickoff; 600 make 300 MB")
    parser.add_argument("--download-patients", type=int, default=5700, help="5,700 make a file of 1 GiB, and a store of 3")
    parser.add_argument("--seconds", type=int, default=120, help="of crowd")
    parser.add_argument("--rate", type=int, default=50, help="kick-offs a second")
    parser.add_argument("--kickoff-seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7, help="of download")
    parser.add_argument("--collect-patients", type=int, default=4000, help="of the store of collect and memory; 4,000 make 2 GB")
    parser.add_argument("--collect-rounds", type=int, default=5)
    parser.add_argument("--memory-mib", type=int, default=256, help="promised for one export")
    parser.add_argument("--readers-python", default=sys.executable, help="a Python that has httpx, requests or aiohttp")
    parser.add_argument("--quick", action="store_true", help="10 s of crowd, 4 s of kick-offs, 3 rounds of 200 MB, collect of 100 MB")
    parser.add_argument("--scratch", help="a directory for scratch; a new one is made in it")
    parser.add_argument("--record", type=Path, help="a directory in which the result is saved as JSON")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.kickoff_seconds, args.rounds, args.download_patients = 10, 4, 3, 1000
        args.collect_patients, args.collect_rounds = 200, 2
    chosen = args.only.split(",")
    if "crowd" in chosen and not shutil.which("wrk"):
        raise SystemExit("crowd needs wrk: install it, or leave crowd out with --only")
    random.seed(1)

    now = datetime.datetime.now(datetime.timezone.utc)
    result = {"at": now.isoformat(timespec="seconds"), "cores": os.cpu_count(), "kernel": os.uname().release,
              "load before": os.getloadavg()[0]}
    broken = []
    with tempfile.TemporaryDirectory(dir=args.scratch) as args.scratch:
        stores, patients = {}, {"crowd": args.patients, "kickoff": args.patients, "collect": args.collect_patients,
                                "memory": args.collect_patients}
        for name in chosen:
            if (count := patients.get(name)) and count not in stores:
                stores[count] = Store(args, count)
            try:
                result[name], found = measures[name](args, stores.get(count))
            except SystemExit as error:  # the others are measured all the same
                result[name], found = {}, [str(error)]
            broken += [f"{name}: {problem}" for problem in found]
            if not args.json:
                print(name)
                table(name, result[name])
    result["broken"] = broken
    if args.json:
        print(json.dumps(result, indent=1))
    for problem in broken:
        print(f"broken: {problem}", file=sys.stderr)
    if args.record:
        path = args.record / f"{now:%Y-%m-%d}-service.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
