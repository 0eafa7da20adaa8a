"""Downloads one file from outpour, from nginx with sendfile and from a plain sendfile server, in turns, and compares.

    python3 benches/download/run.py --file STORED --ours http://127.0.0.1:8080/fhir/bulk-files/ID [--pid PID]

STORED is the very file that the URL gives, as it is stored: with a name that ends in `.gz` it is asked for, and sent, with
`Content-Encoding: gzip`, else as identity. Every server is asked over loopback by the same client, a fresh connection a
download, --repeat times for each figure; each download is counted only if it has the file's digest or, in the timed
rounds, its length. Servers take turns within a round and each round begins elsewhere, so that the machine's moods hit
all of them; medians count. CPU time is user and system of the server's processes. Bounded: `--rounds` downloads a
server (7), none longer than `--seconds` (60). Needs Python 3.11 and, for the comparison that counts, nginx.
"""

import argparse
import hashlib
import json
import os
import socket
import statistics
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent))
from nginx import Nginx, cpu_seconds, installed  # noqa: E402

def download(url, seconds, buffer, coding=None, digest=None):
    """Seconds and bytes of one download; fails on any other answer than the whole file in this content coding."""
    parts = urlsplit(url)
    begun = time.perf_counter()
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds) as client:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        accepted = f"Accept-Encoding: {coding or 'identity'}"
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{accepted}\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = client.recv(65536)
            if not more:
                raise SystemExit(f"{url}: no answer")
            head += more
        head, _, body = head.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise SystemExit(f"{url}: {head.decode(errors='replace')}")
        if coding and f"content-encoding: {coding}" not in head.decode(errors="replace").lower():
            raise SystemExit(f"{url}: not in {coding}")
        got = len(body)
        if digest:
            digest.update(body)
        while read := client.recv_into(buffer):
            if digest:
                digest.update(buffer[:read])
            got += read
            if time.perf_counter() - begun > seconds:
                raise SystemExit(f"{url}: longer than {seconds} s")
    return time.perf_counter() - begun, got


def plain_sendfile(path, coding):
    """The least server that sends the file by sendfile, as a process of its own."""
    head = f"HTTP/1.1 200 OK\r\n{f'Content-Encoding: {coding}' + chr(13) + chr(10) if coding else ''}Connection: close\r\n\r\n"
    server = socket.create_server(("127.0.0.1", 0))
    port, pid = server.getsockname()[1], os.fork()
    if pid:
        server.close()
        return f"http://127.0.0.1:{port}/", pid
    while True:
        client, _ = server.accept()
        with client, open(path, "rb") as file:
            client.recv(65536)
            client.sendall(head.encode())
            try:
                client.sendfile(file)
            except OSError:
                pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--ours", action="append", required=True, help="[name=]URL; may be given several times")
    parser.add_argument("--pid", action="append", default=[], type=int, help="process of each --ours, for CPU time")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeat", type=int, default=1, help="downloads one after the other in each figure")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--bar", type=float, default=0.8, help="least share of nginx that the first --ours must reach")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    file, size = args.file.resolve(), args.file.stat().st_size
    coding = "gzip" if file.suffix == ".gz" else None
    with open(file, "rb") as opened:
        expected = hashlib.file_digest(opened, "sha256").hexdigest()  # and the file is in the page cache
    servers, ours, ends = {}, [], []
    for at, given in enumerate(args.ours):
        name, equals, url = given.rpartition("=") if "=" in given.split("://")[0] else ("outpour", "", given)
        servers[name] = (url, args.pid[at] if at < len(args.pid) else None)
        ours.append(name)
    try:
        if installed():
            nginx = Nginx(file.parent)
            ends.append(nginx.stop)
            servers["nginx"] = (f"http://127.0.0.1:{nginx.port}/{file.name}", nginx.pid)
        else:
            print("nginx is not installed: compared with a plain sendfile server only", file=sys.stderr)
        url, plain = plain_sendfile(file, coding)
        ends.append(lambda: (os.kill(plain, 15), os.waitpid(plain, 0)))
        servers["sendfile"] = (url, plain)
        time.sleep(0.2)

        buffer = memoryview(bytearray(1 << 20))
        for url, _ in servers.values():
            digest = hashlib.sha256()
            download(url, args.seconds, buffer, coding, digest)
            if digest.hexdigest() != expected:
                raise SystemExit(f"{url} gives other bytes than {file}")
        samples = {name: [] for name in servers}
        for turn in range(args.rounds):
            names = list(servers)
            names = names[turn % len(names):] + names[: turn % len(names)]
            for name in names:
                url, pid = servers[name]
                before = cpu_seconds(pid) if pid else 0
                took = 0
                for _ in range(args.repeat):
                    seconds, got = download(url, args.seconds, buffer, coding)
                    if got != size:
                        raise SystemExit(f"{url}: {got} bytes instead of {size}")
                    took += seconds
                samples[name].append((args.repeat * size / took / 1e9, cpu_seconds(pid) - before if pid else None))
    finally:
        for end in ends:
            end()

    rival = "nginx" if "nginx" in servers else "sendfile"
    median = {name: statistics.median(rate for rate, _ in of) for name, of in samples.items()}
    rows = []
    for name, of in samples.items():
        rates = sorted(rate for rate, _ in of)
        cpu = [seconds for _, seconds in of if seconds is not None]
        rows.append({
            "server": name, "GB/s": round(median[name], 2), "from": round(rates[0], 2), "to": round(rates[-1], 2),
            f"of {rival}": round(median[name] / median[rival], 2),
            "server CPU s": round(statistics.median(cpu), 2) if cpu else None,
        })
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join("" if value is None else str(value) for value in row.values()) + " |")
    share = median[ours[0]] / median[rival]
    if share < args.bar:
        raise SystemExit(f"{ours[0]} reaches {share:.2f} of {rival}, which is less than {args.bar}")


if __name__ == "__main__":
    main()
