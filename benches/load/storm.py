"""What storms a service: parts that are bounded in rate and count, each from an address of its own. A storm is two
processes of low priority; it costs the same wherever it is aimed.

tokens    bogus bearer tokens and basic credentials, on connections that are kept and on new ones
bodies    Groups that are malformed, large, and never whole
windows   HTTP/2 connections whose streams have a window of 0, streams that are reset at once; HTTP/1.1 clients that do
          not read their downloads
garbage   random bytes, half handshakes, half requests
jobs      kick-offs of the whole store and of a Group, deleted again while they run
downloads whole files and ranges near their ends, at a bounded rate
"""

import multiprocessing
import os
import random
import socket
import ssl
import struct
import threading
import time

PARTS = {"tokens": 1, "bodies": 0, "windows": 1, "garbage": 1, "jobs": 0, "downloads": 0}  # and the process of each
BODIES = [100_000, 900_000, 4 << 20, 15 << 20]  # bytes: what an allocator treats in different ways


class Target:
    """A service as the storm sees it: port, header of the storm's client, path of a large file of it."""

    def __init__(self, port, authorization, file, size):
        self.port, self.authorization, self.file, self.size = port, authorization, file, size


def client_context(protocol):
    """TLS of a client that takes any certificate: it is the bench's own, of this minute."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


class Storm:
    """Storms a target for the time of the block."""

    def __init__(self, target, parts, seed):
        self.over, self.results = multiprocessing.Event(), multiprocessing.SimpleQueue()
        self.processes = [
            multiprocessing.Process(target=run, args=(target, chosen, seed, self.over, self.results), daemon=True)
            for chosen in ([part for part in parts if PARTS[part] == number] for number in (0, 1)) if chosen]
        self.counts = {}

    def __enter__(self):
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for process in self.processes:
            for name, count in self.results.get().items():
                self.counts[name] = self.counts.get(name, 0) + count
            process.join()


def run(target, parts, seed, over, results):
    """One process of a storm: a thread for each piece of its parts."""
    os.nice(10)
    storm = Pieces(target, seed, over)
    threads = [threading.Thread(target=storm.repeat, args=(*piece, number), daemon=True)
               for part in parts for number, piece in enumerate(getattr(storm, part)())]
    for thread in threads:
        thread.start()
    over.wait()
    results.put(dict(storm.counts))
    os._exit(0)  # whatever is open ends with the process


class Pieces:
    """Each part gives its pieces: a function and how many times a second it is called."""

    def __init__(self, target, seed, over):
        self.target, self.chance, self.over = target, random.Random(seed), over
        self.counts, self.lock, self.held = {}, threading.Lock(), []
        self.contexts = {protocol: client_context(protocol) for protocol in ("http/1.1", "h2")}

    def repeat(self, call, rate, number):
        time.sleep(self.chance.random() / rate)
        due = time.monotonic()
        while not self.over.is_set():
            try:
                call()
            except (OSError, ValueError) as error:  # it is cut off, as it deserves
                self.count(f"cut: {type(error).__name__}")
            due = max(due + 1 / rate, time.monotonic() - 1)
            time.sleep(max(0, due - time.monotonic()))

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def connect(self, last, tls=True, protocol="http/1.1", receive=None):
        """A connection from the address 127.0.0.`last`."""
        raw = socket.socket()
        if receive:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        raw.settimeout(20)
        raw.bind((f"127.0.0.{last}", 0))
        raw.connect(("127.0.0.1", self.target.port))
        if not tls:
            return raw
        return self.contexts[protocol].wrap_socket(raw)

    def status(self, connection, name):
        """Reads the answer to a request as far as its head, and counts it."""
        head = connection.recv(65536)
        self.count(f"{name}: {head[9:12].decode(errors='replace') or 'closed'}")
        return head

    def head(self, method, path, *more):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Accept: application/fhir+json", *more]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def known(self):
        return f"Authorization: {self.target.authorization}"

    # tokens

    def bogus(self):
        digits = f"{self.chance.getrandbits(320):080x}"
        return self.chance.choice([f"Authorization: Bearer {digits[:16]}.{digits[16:]}", f"Authorization: Basic {digits}",
                                   f"{self.known()[:-1]}x", "Authorization: Bearer " + "a" * 8000])

    def tokens(self):
        kept = []

        def ask_again():
            if not kept:
                kept.append(self.connect(11))
            try:
                kept[0].sendall(self.head("GET", "/fhir/$export", self.bogus()))
                self.status(kept[0], "tokens")
            except OSError:
                kept.clear()
                raise

        def ask_once():
            with self.connect(11) as connection:
                connection.sendall(self.head("GET", "/fhir/Group/one", self.bogus(), "Connection: close"))
                self.status(connection, "tokens")

        return [(ask_again, 100), (ask_once, 10)]

    # bodies

    def post(self, *more):
        return self.head("POST", "/fhir/Group", self.known(), "Content-Type: application/fhir+json", *more)

    def bodies(self):
        def malformed():
            body = self.chance.choice([b"{" * 50_000, b'{"resourceType":"Group","name":"\\ud800"}', self.chance.randbytes(20_000),
                                       b'{"resourceType":"Group","member":[' + b'{"entity":{"reference":"Patient/x"}},' * 5000])
            with self.connect(12) as connection:
                connection.sendall(self.post(f"Content-Length: {len(body)}", "Connection: close") + body)
                self.status(connection, "malformed bodies")

        def large():
            length = self.chance.choice(BODIES)
            with self.connect(12) as connection:
                connection.sendall(self.post(f"Content-Length: {length}", "Connection: close"))
                connection.sendall(b" " * length)
                self.status(connection, "large bodies")

        def never_whole():
            """A body that lacks its last byte, up to 20 at a time; those before are given up."""
            length, connection = self.chance.choice(BODIES), self.connect(13)
            self.held.append(connection)
            if len(self.held) > 20:
                self.held.pop(0).close()
            connection.sendall(self.post(f"Content-Length: {length + 1}"))
            connection.sendall(b" " * length)
            self.count("bodies never whole")

        return [(malformed, 10), (large, 1), (never_whole, 2)]

    # windows

    def windows(self):
        opened = []

        def frame(kind, flags, stream, payload=b""):
            return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

        def literal(name, value):
            return bytes([0, len(name)]) + name + bytes([len(value)]) + value

        def headers(stream, path):
            """A GET whose fields are not compressed (RFC 7541, 6.2.2)."""
            fields = b"\x82\x87" + b"\x04" + bytes([len(path)]) + path + b"\x01\x09localhost"
            fields += literal(b"authorization", self.target.authorization.encode())
            return frame(1, 0x4 | 0x1, stream, fields)

        def two():
            """A connection with 100 streams that may be sent nothing, half of them of a large file."""
            if len(opened) >= 12:
                opened.pop(0)[0].close()
            connection = self.connect(14, protocol="h2")
            # SETTINGS_INITIAL_WINDOW_SIZE is 0, and the peer's settings are acknowledged.
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 0)) + frame(4, 1, 0))
            paths = [b"/fhir/metadata", self.target.file.encode()]
            connection.sendall(b"".join(headers(2 * n + 1, paths[n % 2]) for n in range(100)))
            self.count("HTTP/2 connections without a window")
            opened.append([connection, 201])

        def reset():
            """Streams that are reset as soon as they are opened (CANCEL)."""
            if not opened:
                return
            connection, stream = opened[-1]
            opened[-1][1] += 20
            streams = range(stream, stream + 20, 2)
            connection.sendall(b"".join(headers(n, b"/fhir/metadata") + frame(3, 0, n, struct.pack(">I", 8)) for n in streams))
            self.count("ten streams reset")

        unread = []

        def never_read():
            if len(unread) >= 40:
                unread.pop(0).close()
            connection = self.connect(15, receive=4096)
            connection.sendall(self.head("GET", self.target.file, self.known()).replace(b"application/fhir+json", b"*/*"))
            self.count("downloads not read")
            unread.append(connection)

        return [(two, 1), (reset, 5), (never_read, 4)]

    # garbage

    def garbage(self):
        held = []

        def keep(connection):
            held.append(connection)
            if len(held) > 100:
                held.pop(0).close()

        def random_bytes():
            with self.connect(16, tls=False) as connection:
                connection.sendall(self.chance.randbytes(1 + self.chance.randrange(2000)))
                self.count("random bytes")

        def half_handshake():
            connection = self.connect(16, tls=False)
            connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            self.count("half handshakes")
            keep(connection)

        def half_request():
            connection = self.connect(16)
            connection.sendall(self.head("GET", "/fhir/metadata")[:-self.chance.randrange(1, 40)])
            self.count("half requests")
            keep(connection)

        return [(random_bytes, 20), (half_handshake, 10), (half_request, 5)]

    # jobs

    def jobs(self):
        running = []

        def start(path):
            def kick_off():
                with self.connect(17) as connection:
                    connection.sendall(self.head("GET", path, self.known(), "Prefer: respond-async"))
                    head = self.status(connection, "kick-offs")
                    place = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"content-location")), None)
                    if place:
                        running.append("/" + place.decode().split("/", 3)[3])
                    while len(running) > 3:
                        connection.sendall(self.head("DELETE", running.pop(0), self.known()))
                        self.status(connection, "deletions of jobs")
            return kick_off

        return [(start("/fhir/$export"), 1), (start("/fhir/Group/one/$export"), 5)]

    # downloads

    def downloads(self):
        def whole():
            """The first 16 MiB of a file, then the client goes away."""
            with self.connect(18) as connection:
                connection.sendall(self.head("GET", self.target.file, self.known()).replace(b"application/fhir+json", b"*/*"))
                self.status(connection, "downloads")
                buffer, got = bytearray(1 << 18), 0
                while got < 16 << 20 and (read := connection.recv_into(buffer)):
                    got += read

        def end():
            with self.connect(18) as connection:
                more = [self.known(), f"Range: bytes={self.target.size - 100}-{self.target.size - 1}", "Accept-Encoding: identity"]
                connection.sendall(self.head("GET", self.target.file, *more).replace(b"application/fhir+json", b"*/*"))
                self.status(connection, "ranges")

        return [(whole, 1), *[(end, 1)] * 6]
