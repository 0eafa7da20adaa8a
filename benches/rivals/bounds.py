"""The speed of light on this machine, as programs whose own CPU time is printed: `bounds.py read FILE…` looks at every
byte once with the C library's memchr, `bounds.py write BYTES FILE` writes as many bytes with write(2) three times (`cpu`
is the first, `least` the fastest: memory that was just in use is cheaper than new memory), `bounds.py zstd
FILE…` decompresses every frame with libzstd, `bounds.py touch BYTES` uses new memory. Python's start is not in the figures.
"""

import ctypes
import json
import mmap
import os
import sys
import time

WRITE_BYTES = 1 << 20


def read(paths):
    memchr = ctypes.CDLL(None).memchr
    memchr.restype = ctypes.c_void_p
    memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    for path in paths:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            view = (ctypes.c_char * len(data)).from_buffer(data)
            # No JSON text holds a zero byte, so this looks at all of them.
            if memchr(ctypes.addressof(view), 0, len(data)):
                raise SystemExit(f"{path}: a zero byte")
            del view
            data.close()
    return sum(os.path.getsize(path) for path in paths)


def write(size, path):
    piece = os.urandom(WRITE_BYTES)
    with open(path, "wb", buffering=0) as file:
        for at in range(0, size, WRITE_BYTES):
            file.write(piece[: size - at] if size - at < WRITE_BYTES else piece)
    return size


def touch(size):
    """Uses `size` bytes of new memory for the first time, a page at a time, as every buffer and every new file does."""
    memory = mmap.mmap(-1, size)
    for at in range(0, size, mmap.PAGESIZE):
        memory[at] = 1
    return size


def inflate(paths):
    import zstd
    total = 0
    for path in paths:
        with open(path, "rb") as file:
            total += zstd.decompress_all(file.read())
    return total


def timed(work, *arguments):
    before = time.process_time()
    return work(*arguments), time.process_time() - before


if __name__ == "__main__":
    what, rest = sys.argv[1], sys.argv[2:]
    if what == "write":
        runs = [timed(write, int(rest[0]), rest[1]) for _ in range(3)]
    elif what == "touch":
        runs = [timed(touch, int(rest[0]))]
    else:
        runs = [timed({"read": read, "zstd": inflate}[what], rest)]
    json.dump({"bytes": runs[0][0], "cpu": runs[0][1], "least": min(cpu for _, cpu in runs)}, sys.stdout)
