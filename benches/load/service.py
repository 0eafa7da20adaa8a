"""A release `outpour serve` as a process of the bench's own, and the least client of it."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

HEADERS = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
BASE = "/fhir"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Service:
    """Serves `store` until the end of the block; `config` is {table: {key: value}}, and `clients` the end of the
    configuration. With `tls`, a context of clients, it speaks TLS alone. What it keeps lies in a new directory under
    `scratch` and goes with it. Fails when it has logged an error or does not stop in time."""

    def __init__(self, binary, store, index, scratch, config, clients="", tls=None):
        self.tls = tls
        self.home = Path(tempfile.mkdtemp(dir=scratch))
        self.port = free_port()
        tables = {"log": {"level": "info"}, **config}
        lines = [f'listen = "127.0.0.1:{self.port}"']
        for name, keys in tables.items():
            lines += [f"[{name}]"] + [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        (self.home / "serve.toml").write_text("\n".join(lines) + "\n" + clients)
        self.data = self.home / "data"
        self.log = open(self.home / "log", "wb")
        self.process = subprocess.Popen(
            [binary, "serve", "--config", self.home / "serve.toml", "--store", store, "--index-dir", index,
             "--data", self.data], stdout=self.log, stderr=self.log)
        self.pid = self.process.pid

    def __enter__(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if Client(self).ask("GET", "/health/ready")[0] == 200:
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                raise SystemExit(f"outpour serve ended: {self.logged()[-2000:]}")
            time.sleep(0.05)
        self.process.kill()
        raise SystemExit("outpour serve is not ready after 60 s")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.log.close()
            self.errors = [line for line in self.logged().splitlines() if " ERROR " in line]
            shutil.rmtree(self.home)

    def logged(self):
        return (self.home / "log").read_text(errors="replace")

    def cpu_seconds(self):
        """User and system time of the server."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """RssAnon in MiB, threads, open files."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        files = len(os.listdir(f"/proc/{self.pid}/fd"))
        return round(int(status["RssAnon"].split()[0]) / 1024, 1), int(status["Threads"]), files


class Client:
    """A connection that is kept, from an address of this machine, with headers of its own."""

    def __init__(self, service, headers=None, address="127.0.0.1"):
        to = {"host": "127.0.0.1", "port": service.port, "timeout": 60, "source_address": (address, 0)}
        if service.tls:
            self.connection = http.client.HTTPSConnection(**to, context=service.tls)
        else:
            self.connection = http.client.HTTPConnection(**to)
        self.headers = HEADERS | (headers or {})

    def ask(self, method, path, headers=None):
        self.connection.request(method, path, headers=headers or self.headers)
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def kick_off(self, path):
        """Path of the new job's state."""
        status, headers, body = self.ask("GET", BASE + path)
        if status != 202:
            raise SystemExit(f"{path}: {status} {body.decode(errors='replace')}")
        return "/" + headers["Content-Location"].split("/", 3)[3]

    def finished(self, job, pause, seconds=120):
        """The manifest, once it is there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status, _, body = self.ask("GET", job)
            if status == 200:
                return json.loads(body)
            if status != 202:
                raise SystemExit(f"{job}: {status} {body.decode(errors='replace')}")
            time.sleep(pause)
        raise SystemExit(f"{job} has not ended within {seconds} s")


class Exporting:
    """Exports the whole store again and again, two jobs at a time, for as long as the block lasts."""

    def __init__(self, service, pause):
        self.service, self.pause, self.done, self.over = service, pause, 0, threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(2)]
        self.failed = None

    def run(self):
        try:
            client = Client(self.service)
            while not self.over.is_set():
                job = client.kick_off("/$export")
                while not self.over.is_set() and (status := client.ask("GET", job)[0]) == 202:
                    time.sleep(self.pause)
                if not self.over.is_set() and status != 200:
                    raise SystemExit(f"an export that ran beside was answered {status}")
                self.done += not self.over.is_set()
                client.ask("DELETE", job)
        except (Exception, SystemExit) as error:
            self.failed = str(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()
