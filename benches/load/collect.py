"""Whole exports end to end: from sending a kick-off to the last byte of the last file, and the same ready files beside
nginx; and the most memory of exports in each compression.
"""

import gzip
import hashlib
import json
import os
import queue
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from service import BASE, Client, Service

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "download"))
from nginx import Nginx, installed  # noqa: E402

CONNECTIONS = (1, 5)
WHO = {"everybody": "/Patient/$export", "a Group of 10 %": "/Group/percent-10/$export"}
#: Bytes that a client takes from a socket at a time.
PIECE = 1 << 18
#: Files that are as long on average are held to the promised share of nginx: what is shorter is the cost of a request.
JUDGED_BYTES = 4 << 20
#: A figure of ready files covers at least so many bytes, by taking all files again and again.
READY_BYTES = 1 << 29


class Connection:
    """A kept connection that downloads files one after the other; `bytes` are those of all bodies."""

    def __init__(self, port, coding):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.coding, self.buffer, self.bytes = coding, memoryview(bytearray(PIECE)), 0

    def fetch(self, path, take=None):
        """Headers of the answer; its body goes to `take`, piece by piece, or nowhere."""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {self.coding}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.socket.recv(PIECE)
            if not more:
                raise OSError(f"{path}: the connection ended before the headers did")
            head += more
        head, _, body = head.partition(b"\r\n\r\n")
        headers = head.decode().lower()
        coding = "gzip" if "\r\ncontent-encoding: gzip" in headers else "identity"
        if " 200 " not in headers.split("\r\n")[0] or coding != self.coding:
            raise OSError(f"{path}: {headers}")
        length, got = int(re.search(r"\r\ncontent-length: (\d+)", headers)[1]), len(body)
        if take:
            take(body)
        while got < length:
            read = self.socket.recv_into(self.buffer, min(PIECE, length - got))
            if not read:
                raise OSError(f"{path}: {got} bytes of {length}")
            if take:
                take(self.buffer[:read])
            got += read
        self.bytes += got
        return head.decode()


def receive(port, paths, connections, coding):
    """Takes all files over so many connections, in a process of its own; {seconds, cpu, bytes} of the client."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid:
        os.close(sink)
        with open(source) as told:
            text = told.read()
        os.waitpid(pid, 0)
        told = json.loads(text or '{"error": "the client died"}')
        if "error" in told:
            raise SystemExit(told["error"])
        return told
    told = {"error": "the client failed"}
    try:
        todo, done, failed = queue.SimpleQueue(), [], []
        for path in paths:
            todo.put(path)

        def take():
            try:
                connection = Connection(port, coding)
                while True:
                    connection.fetch(todo.get_nowait())
            except queue.Empty:
                done.append(connection.bytes)
            except Exception as error:
                failed.append(str(error))

        usage = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        cpu, begun = usage(), time.perf_counter()
        threads = [threading.Thread(target=take) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begun
        told = {"error": failed[0]} if failed else {"seconds": seconds, "cpu": usage() - cpu, "bytes": sum(done)}
    finally:
        os.write(sink, json.dumps(told).encode())
        os._exit(0)


class Memory:
    """The most RssAnon of a process while the block lasts, in MiB, looked for every 5 ms."""

    def __init__(self, pid):
        self.status, self.most, self.over = Path(f"/proc/{pid}/status"), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.over.wait(0.005):
            try:
                self.most = max(self.most, int(re.search(r"RssAnon:\s+(\d+)", self.status.read_text())[1]) / 1024)
            except (OSError, TypeError):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def written(pid):
    """Bytes that the process has given to the disk or still will: pages of files that it made dirty."""
    return int(re.search(r"\nwrite_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text())[1])


def checked(service, coding, manifest, out):
    """Every file as it came against the disk, and its rows against the manifest: {path: name}, wire and plain bytes, rows."""
    connection, found, wire, plain, rows = Connection(service.port, coding), {}, 0, 0, 0
    for file in manifest["output"]:
        path, digest, got = urlsplit(file["url"]).path, hashlib.sha256(), []
        head = connection.fetch(path, lambda piece: (digest.update(piece), got.append(bytes(piece))))
        name = re.search(r'(?i)filename="([^"]+)"', head)[1]
        with open(out / name, "rb") as stored:
            if hashlib.file_digest(stored, "sha256").digest() != digest.digest():
                raise SystemExit(f"{name}: other bytes than on the disk")
        body = b"".join(got)
        text = gzip.decompress(body) if coding == "gzip" else body
        if (lines := text.count(b"\n")) != file["count"]:
            raise SystemExit(f"{name}: {lines} rows, {file['count']} in the manifest")
        found[path], wire, plain, rows = name, wire + len(body), plain + len(text), rows + lines
    return found, wire, plain, rows


class Job:
    """An export over HTTP, from its kick-off to its last byte."""

    def __init__(self, service, kick_off, connections, coding):
        client = Client(service)
        cpu, disk, begun = service.cpu_seconds(), written(service.pid), time.perf_counter()
        self.path = client.kick_off(kick_off)
        self.manifest = client.finished(self.path, 0.005, 600)
        self.manifest_seconds = time.perf_counter() - begun
        self.manifest_cpu = service.cpu_seconds() - cpu
        self.paths = [urlsplit(file["url"]).path for file in self.manifest["output"]]
        client_told = receive(service.port, self.paths, connections, coding)
        self.seconds = time.perf_counter() - begun
        self.cpu, self.client_cpu = service.cpu_seconds() - cpu, client_told["cpu"]
        self.bytes, self.disk = client_told["bytes"], written(service.pid) - disk
        self.out = service.data / "files" / self.path.rsplit("/", 1)[1] / "out"


def ready(service, nginx, names, connections, coding, rounds):
    """The same ready files by the service and by nginx, in turns: medians, and the median of the rounds' shares."""
    paths = {service: list(names), nginx: [f"/{name}" for name in names.values()]}
    once = receive(service.port, paths[service], connections, coding)["bytes"]
    times = max(1, min(50, READY_BYTES // once))
    rates, cpu, clients = ({server: [] for server in paths} for _ in range(3))
    for turn in range(rounds):
        for server in (service, nginx) if turn % 2 else (nginx, service):
            before = server.cpu_seconds()
            told = receive(server.port, paths[server] * times, connections, coding)
            if told["bytes"] != once * times:
                raise SystemExit(f"{told['bytes']} bytes instead of {once * times}")
            rates[server].append(told["bytes"] / told["seconds"] / 1e9)
            cpu[server].append((server.cpu_seconds() - before) / times)
            clients[server].append(told["cpu"] / times)
    shares = [ours / theirs for ours, theirs in zip(rates[service], rates[nginx])]
    median = statistics.median
    return {"GB/s": round(median(rates[service]), 2), "nginx GB/s": round(median(rates[nginx]), 2),
            "of nginx": round(median(shares), 2), "from": round(min(shares), 2), "to": round(max(shares), 2),
            "CPU s": round(median(cpu[service]), 3), "nginx CPU s": round(median(cpu[nginx]), 3),
            "client CPU s": round(median(clients[service]), 3), "times": times, "load": round(os.getloadavg()[0], 1)}


def settings(compress):
    """Of a service whose jobs may be polled without a pause, and whose disk is not waited for."""
    return {"data": {"sync": False}, "files": {"compress": compress}, "ig": {"first_poll_in_progress": False},
            "limits": {"polls_per_second": 1000, "polls_burst": 1000}}


def packed(args, store, coding):
    """A store packed in `coding`, and its index."""
    path = store.path.with_name(f"{store.path.name}-{coding}")
    index = path.with_name(f"{path.name}-index")
    if path.exists():
        return path, index
    for command in (["pack", "--store", store.path, "--index-dir", store.index, "--to", path, "--coding", coding, "--no-sync"],
                    ["index", "--store", path, "--index-dir", index]):
        subprocess.run([args.binary, *command, "--progress", "never"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    return path, index


def collect(args, store):
    """Kick-off to manifest and to last byte; then the ready files beside nginx."""
    if not installed():
        print("nginx is not installed: no ready files beside it", file=sys.stderr)
    stores = {"plain to identity": (store.path, store.index, "none"),
              "packed to gzip, joined": (*packed(args, store, "gzip"), "gzip"),
              "plain to gzip, coded": (store.path, store.index, "gzip")}
    rows, beside, broken = [], [], []
    for title, (path, index, compress) in stores.items():
        coding = "gzip" if compress == "gzip" else "identity"
        for who, kick_off in WHO.items():
            with Service(args.binary, path, index, args.scratch, settings(compress)) as service:
                client = Client(service)
                first = Job(service, kick_off, 1, coding)
                names, wire, plain, resources = checked(service, coding, first.manifest, first.out)
                runs = {connections: [] for connections in CONNECTIONS}
                most = dict.fromkeys(CONNECTIONS, 0)
                for turn in range(args.collect_rounds):
                    for connections in CONNECTIONS[::1 if turn % 2 else -1]:
                        with Memory(service.pid) as memory:
                            job = Job(service, kick_off, connections, coding)
                        if job.bytes != wire:
                            raise SystemExit(f"{job.bytes} bytes instead of {wire}")
                        most[connections] = max(most[connections], memory.most)
                        runs[connections].append(job)
                        client.ask("DELETE", job.path)
                for connections, jobs in runs.items():
                    median = lambda what: statistics.median(getattr(job, what) for job in jobs)
                    seconds = median("seconds")
                    rows.append({
                        "store": title, "who": who, "connections": connections,
                        "manifest s": round(median("manifest_seconds"), 3), "last byte s": round(seconds, 3),
                        "from": round(min(job.seconds for job in jobs), 3), "to": round(max(job.seconds for job in jobs), 3),
                        "files": len(names), "resources": resources, "wire MB": round(wire / 1e6, 1),
                        "plain MB": round(plain / 1e6, 1), "wire MB/s": round(wire / seconds / 1e6),
                        "plain MB/s": round(plain / seconds / 1e6), "resources/s": round(resources / seconds),
                        "CPU s": round(median("cpu"), 2), "to the manifest": round(median("manifest_cpu"), 2),
                        "client CPU s": round(median("client_cpu"), 2),
                        "disk MB": round(median("disk") / 1e6, 1), "RssAnon MiB": round(most[connections], 1),
                        "load": round(os.getloadavg()[0], 1)})
                # What is coded for the export is sent as what is joined.
                if installed() and title != "plain to gzip, coded":
                    nginx = Nginx(first.out, workers=os.cpu_count())
                    try:
                        for connections in CONNECTIONS:
                            found = ready(service, nginx, names, connections, coding, args.collect_rounds)
                            beside.append({"ready files": coding, "who": who, "connections": connections, **found})
                            if wire >= JUDGED_BYTES * len(names) and found["of nginx"] < 0.8:
                                broken.append(f"{coding}, {connections} connections: {found['of nginx']} of nginx: promised are 0.8")
                    finally:
                        nginx.stop()
            broken += service.errors[:5]
    return {"end to end": rows, "ready files": beside}, broken


def memory(args, store):
    """The most RssAnon of an export of everybody: of the command, and of the service with five downloads."""
    stores = {"plain": (store.path, store.index), **{coding: packed(args, store, coding) for coding in ("gzip", "zstd")}}
    rows, broken = [], []
    for form, compress in (("plain", "none"), ("plain", "gzip"), ("plain", "zstd"), ("gzip", "gzip"), ("zstd", "zstd"),
                           ("gzip", "none"), ("gzip", "zstd")):
        path, index = stores[form]
        out = Path(args.scratch, "out")
        command = subprocess.Popen(
            [args.binary, "export", "--store", path, "--index-dir", index, "--all-patients", "--compress", compress, "--out", out,
             "--no-sync", "--progress", "never"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Memory(command.pid) as of_command:
            begun = time.perf_counter()
            if command.wait(600):
                raise SystemExit(f"an export from {form} to {compress} ended with {command.returncode}")
            seconds = time.perf_counter() - begun
        shutil.rmtree(out)
        row = {"store": form, "compress": compress, "command MiB": round(of_command.most, 1), "seconds": round(seconds, 2)}
        # A client that takes zstd is left out: what is joined from frames is sent as any other file.
        if compress != "zstd":
            with Service(args.binary, path, index, args.scratch, settings(compress)) as service:
                with Memory(service.pid) as of_service:
                    Job(service, WHO["everybody"], 5, "gzip" if compress == "gzip" else "identity")
            row["service MiB"] = round(of_service.most, 1)
            broken += service.errors[:5]
        rows.append(row | {"load": round(os.getloadavg()[0], 1)})
        fullest = max(of_command.most, row.get("service MiB", 0))
        if fullest > args.memory_mib:
            broken.append(f"{form} to {compress}: {fullest:.0f} MiB: promised are {args.memory_mib}")
    return {"exports of everybody": rows}, broken
