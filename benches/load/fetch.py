"""Many clients that download at once: each takes a file by chance, again and again, and compares every byte of it with
the file on the disk. Runs in a process of its own."""

import mmap
import random
import re
import socket
import threading
import time
from urllib.parse import urlsplit


def downloads(port, urls, directory, clients, seconds):
    """Answers by status, whole downloads, bytes, and errors (a few)."""
    end = time.monotonic() + seconds
    result = {"answers": {}, "whole": 0, "GB": 0, "errors": []}
    lock, maps = threading.Lock(), {}

    def stored(name):
        with lock:
            if name not in maps:
                with open(directory / name, "rb") as file:
                    maps[name] = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
            return maps[name]

    def one(path, buffer):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                more = client.recv(65536)
                if not more:
                    raise OSError("the connection ended before the headers did")
                head += more
            head, _, body = head.partition(b"\r\n\r\n")
            status = head.split(b" ", 2)[1].decode()
            with lock:
                result["answers"][status] = result["answers"].get(status, 0) + 1
            if status == "429":
                return
            if status != "200":
                raise OSError(f"answered {status}")
            name = re.search(rb'(?i)filename="([^"]+)"', head)[1].decode()
            expected, got = stored(name), len(body)
            if expected[:got] != body:
                raise OSError(f"{name}: other bytes")
            while read := client.recv_into(buffer):
                if expected[got:got + read] != buffer[:read]:
                    raise OSError(f"{name}: other bytes at {got}")
                got += read
                if time.monotonic() > end:
                    break
            else:
                if got != len(expected):
                    raise OSError(f"{name}: {got} bytes of {len(expected)}")
                with lock:
                    result["whole"] += 1
            with lock:
                result["GB"] += got / 1e9

    def run(seed):
        chance, buffer = random.Random(seed), memoryview(bytearray(1 << 18))
        while time.monotonic() < end:
            try:
                one(urlsplit(chance.choice(urls)).path, buffer)
            except OSError as error:
                with lock:
                    result["errors"].append(f"download: {error}")
                time.sleep(0.1)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result["GB"] = round(result["GB"], 1)
    result["failed"], result["errors"] = len(result["errors"]), result["errors"][:5]
    return result
