"""Storms a release `outpour serve` for ten minutes, and measures what its well-behaved clients notice.

    cargo build --release
    python3 benches/load/soak.py [--seconds 600] [--quick] [--parts tokens,bodies,...] [--record benches/record]

Two services, A and B, serve the same store over TLS, each with its own data directory. The same storm (storm.py) is aimed
at A and at B in turns, while the same clients measure on A alone: what a storm on A costs beyond the processor time that
the storm itself takes is the difference between the two. Medians over the turns count.

polls      20 a second over 20 finished jobs, each once a second
kick-offs  5 a second, Group of one patient, each deleted afterwards (`data.sync = false`: the disk is everybody's)
download   one client, a file of the whole store's ExplanationOfBenefits again and again, as fast as it comes
memory     RssAnon of A twice a second: before, the most, and a minute after the end

Needs Python 3.11 and openssl (for a certificate); nothing is installed. Ends with 1 when a bar is broken.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from run import ROOT, Store, spread, table  # noqa: E402
from service import Client, Service  # noqa: E402
from storm import PARTS, Storm, Target, client_context  # noqa: E402

LATENCY_MS, DOWNLOAD_SHARE, MEMORY_MIB = 100, 0.7, 50
SETTLE = 3  # seconds of a storm before anything is measured
JOBS = 20
CLIENT = "127.0.0.2"  # of the well-behaved clients


def credentials(binary):
    """The end of a configuration with two clients, and the header of each."""
    text, headers = "", {}
    for name in ("measured", "storm"):
        made = subprocess.run([binary, "credential", "token", "--json"], check=True, capture_output=True, text=True)
        made = json.loads(made.stdout)
        text += f"[[clients]]\nname = '{name}'\nwrites_groups = true\ntokens = [\n{made['configuration']}\n]\n"
        headers[name] = f"Bearer {made['token']}"
    return text, headers


def large_file(service, authorization):
    """Path and length of a file that a whole export makes for a client."""
    client = Client(service, {"Authorization": authorization}, CLIENT)
    job = client.kick_off("/$export?_type=ExplanationOfBenefit")
    client.headers["Accept"] = "*/*"
    url = client.finished(job, 1)["output"][0]["url"]
    path = "/" + url.split("/", 3)[3]
    status, headers, _ = client.ask("HEAD", path, client.headers | {"Accept-Encoding": "identity"})
    if status != 200:
        raise SystemExit(f"{path}: {status}")
    length = headers["Content-Length"]
    return path, int(length) if length else len(client.ask("GET", path, client.headers | {"Accept-Encoding": "identity"})[2])


def ask_on_time(service, authorization, jobs, seconds, results):
    """Polls and kick-offs on a schedule, in a process of its own: their times, and what was answered otherwise."""
    end = time.monotonic() + seconds
    times, wrong = {"polls": [], "kick-offs": []}, []

    def on_time(name, rate, call):
        client = Client(service, {"Authorization": authorization}, CLIENT)
        begun, number = time.monotonic(), 0
        while (due := begun + number / rate) < end:
            time.sleep(max(0, due - time.monotonic()))
            sent = time.perf_counter()
            try:
                status, then = call(client, number)
                times[name].append(time.perf_counter() - sent)
                if status not in (200, 202):
                    wrong.append(f"{name}: {status}")
                then()
            except (OSError, SystemExit, Exception) as error:
                wrong.append(f"{name}: {error!r}")
                client = Client(service, {"Authorization": authorization}, CLIENT)
            number += 1

    def poll(client, number):
        return client.ask("GET", jobs[number % len(jobs)])[0], lambda: None

    def kick_off(client, _):
        status, headers, _ = client.ask("GET", "/fhir/Group/one/$export")
        job = headers.get("Content-Location")
        return status, lambda: job and client.ask("DELETE", "/" + job.split("/", 3)[3])

    threads = [threading.Thread(target=on_time, args=("polls", 20, poll)),
               threading.Thread(target=on_time, args=("kick-offs", 5, kick_off))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((times, wrong))


def download(service, authorization, path, seconds, results):
    """Bytes a second of one client that downloads a file again and again, in a process of its own."""
    client = Client(service, {"Authorization": authorization}, CLIENT)
    begun, got, wrong, buffer = time.monotonic(), 0, [], bytearray(1 << 18)
    while time.monotonic() < begun + seconds:
        try:
            client.connection.request("GET", path, headers={"Authorization": authorization, "Accept-Encoding": "identity"})
            answer = client.connection.getresponse()
            if answer.status != 200:
                wrong.append(f"download: {answer.status}")
            while (read := answer.readinto(buffer)):
                got += read
                if time.monotonic() >= begun + seconds:
                    break
        except OSError as error:
            wrong.append(f"download: {error!r}")
            client = Client(service, {"Authorization": authorization}, CLIENT)
    results.put((got / (time.monotonic() - begun), wrong))


class Memory:
    """RssAnon of a service, twice a second, for the time of the block."""

    def __init__(self, service):
        self.service, self.values, self.over = service, [], threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        while not self.over.wait(0.5):
            self.values.append(self.service.memory()[0])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def turn(args, service, headers, jobs, path, target, seed):
    """One storm, aimed at `target`, and what the clients of `service` notice of it."""
    seconds = args.seconds / (2 * args.rounds)
    asked, loaded = multiprocessing.SimpleQueue(), multiprocessing.SimpleQueue()
    with Storm(target, args.parts, seed) as storm:
        time.sleep(SETTLE)
        measured = max(1, seconds - SETTLE)
        clients = [
            multiprocessing.Process(target=ask_on_time, args=(service, headers["measured"], jobs, measured, asked)),
            multiprocessing.Process(target=download, args=(service, headers["measured"], path, measured, loaded))]
        for client in clients:
            client.start()
        (times, wrong), (rate, more) = asked.get(), loaded.get()
        for client in clients:
            client.join()
    return {"times": times, "MB a second": rate / 1e6, "wrong": wrong + more, "storm": storm.counts}


def soak(args):
    """The turns, and their figures."""
    tls = client_context("http/1.1")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                    "2", "-subj", "/CN=localhost", "-keyout", f"{args.scratch}/key.pem", "-out", f"{args.scratch}/cert.pem"],
                   check=True, capture_output=True)
    store = Store(args, args.patients)
    clients, headers = credentials(args.binary)
    config = {"data": {"sync": False}, "files": {"max_bytes": 4 << 30, "compress": args.compress},
              "jobs": {"active_per_client": 50}, "ig": {"first_poll_in_progress": False},
              "tls": {"certificate": f"{args.scratch}/cert.pem", "key": f"{args.scratch}/key.pem"}}
    serve = lambda: Service(args.binary, store.path, store.index, args.scratch, config, clients, tls)
    begun = time.monotonic()
    turns = {"A": [], "B": []}
    with serve() as a, serve() as b:
        targets = {}
        for name, service in (("A", a), ("B", b)):
            targets[name] = Target(service.port, headers["storm"], *large_file(service, headers["storm"]))
        path = large_file(a, headers["measured"])[0]
        client = Client(a, {"Authorization": headers["measured"]}, CLIENT)
        jobs = [client.kick_off("/Group/one/$export") for _ in range(JOBS)]
        for job in jobs:
            client.finished(job, 0.6)
        time.sleep(2)
        before = a.memory()[0]
        cpu = a.cpu_seconds()
        with Memory(a) as memory:
            for number in range(args.rounds):
                for name in ("BA" if number % 2 == 0 else "AB"):
                    turns[name].append(turn(args, a, headers, jobs, path, targets[name], args.seed + number))
            cpu = a.cpu_seconds() - cpu
            ended = len(memory.values)
            time.sleep(args.after)
        after, threads, files = a.memory()
        load = os.getloadavg()[0]
    took = time.monotonic() - begun
    return report(args, turns, {
        "before": before, "most": max(memory.values[:ended]), "a minute after": after,
        "a value each 20 s": memory.values[::40]}) | {
        "threads, open files at the end": [threads, files], "CPU seconds of A": round(cpu, 1), "seconds": round(took),
        "load": load, "logged as errors": (a.errors + b.errors)[:5]}


def report(args, turns, memory):
    """Figures of each aim of the storm: of all times together, and the median over the turns of each turn's p99."""
    row = {"parts": ",".join(args.parts), "rounds": args.rounds, "RssAnon of A, MiB": memory}
    for name, of in turns.items():
        figures = {}
        for what in ("polls", "kick-offs"):
            figures[what] = spread([time for turn in of for time in turn["times"][what]])
            figures[what]["count"] = sum(len(turn["times"][what]) for turn in of)
            figures[what]["p99_ms, median of turns"] = statistics.median(spread(turn["times"][what])["p99_ms"] for turn in of)
        rates = [turn["MB a second"] for turn in of]
        figures["download, MB a second"] = {"median": round(statistics.median(rates)), "from": round(min(rates)), "to": round(max(rates))}
        storm = {}
        for turn in of:
            for what, count in turn["storm"].items():
                storm[what] = storm.get(what, 0) + count
        figures["storm"] = dict(sorted(storm.items()))
        figures["answered otherwise"] = [wrong for turn in of for wrong in turn["wrong"]][:5]
        row[f"storm on {name}, measured on A"] = figures
    on_a, on_b = (row[f"storm on {name}, measured on A"]["download, MB a second"]["median"] for name in "AB")
    row["download under the storm, of undisturbed"] = round(on_a / on_b, 2) if on_b else 0
    return row


def broken_bars(row):
    """What the figures break."""
    broken = [f"an error is logged: {line}" for line in row["logged as errors"]]
    stormed = row["storm on A, measured on A"]
    for what in ("polls", "kick-offs"):
        if (p99 := stormed[what]["p99_ms"]) >= LATENCY_MS:
            broken.append(f"{what} under the storm take {p99} ms at p99: promised are {LATENCY_MS}")
    for name in "AB":
        broken += [f"storm on {name}: {wrong}" for wrong in row[f"storm on {name}, measured on A"]["answered otherwise"]]
    if (share := row["download under the storm, of undisturbed"]) < DOWNLOAD_SHARE:
        broken.append(f"a download under the storm has {share} of the undisturbed rate: promised are {DOWNLOAD_SHARE}")
    memory = row["RssAnon of A, MiB"]
    if memory["a minute after"] > memory["before"] + MEMORY_MIB:
        broken.append(f"a minute after the storm memory is {memory['a minute after']} MiB, {memory['before']} before")
    return broken


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/outpour")
    parser.add_argument("--seconds", type=int, default=600, help="of storms, aimed at either service")
    parser.add_argument("--rounds", type=int, default=10, help="turns with the storm on each service")
    parser.add_argument("--after", type=int, default=60, help="seconds after the last storm until memory is looked at")
    parser.add_argument("--quick", action="store_true", help="60 seconds in 2 rounds")
    parser.add_argument("--parts", default=",".join(PARTS), type=lambda text: text.split(","))
    parser.add_argument("--compress", default="none", choices=["none", "gzip", "zstd"], help="coding of the files of jobs")
    parser.add_argument("--patients", type=int, default=600, help="of the store; 600 make 300 MB")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", help="a directory for scratch; a new one is made in it")
    parser.add_argument("--record", type=Path, help="a directory in which the result is saved as JSON")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.rounds = 60, 2
    if unknown := [part for part in args.parts if part not in PARTS]:
        parser.error(f"--parts: {', '.join(unknown)} is none of {', '.join(PARTS)}")
    random.seed(args.seed)
    now = datetime.datetime.now(datetime.timezone.utc)
    result = {"at": now.isoformat(timespec="seconds"), "cores": os.cpu_count(), "kernel": os.uname().release,
              "load before": os.getloadavg()[0], "seed": args.seed, "arenas": os.environ.get("MALLOC_ARENA_MAX", "default")}
    with tempfile.TemporaryDirectory(dir=args.scratch) as args.scratch:
        result["soak"] = soak(args)
    result["broken"] = broken_bars(result["soak"])
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        table("soak", result["soak"])
    for problem in result["broken"]:
        print(f"broken: {problem}", file=sys.stderr)
    if args.record:
        (args.record / f"{now:%Y-%m-%d}-soak.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(1 if result["broken"] else 0)


if __name__ == "__main__":
    main()
