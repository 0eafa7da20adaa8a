"""The content of an answer: for each type the number of lines and the sum of their hashes, whatever the order and the
files. Two answers are the same when these are. Run as a program so that the measuring process stays small:
`compare.py DIR` prints JSON.
"""

import gzip
import hashlib
import json
import os
import re
import sys

MODULUS = 1 << 128
DATA_FILE = re.compile(r"^([A-Za-z]+)(?:\.\d+)?\.ndjson(\.zst|\.gz)?$")
BLOCK_BYTES = 8 << 20


def line_hash(line):
    return int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "little")


def _blocks(path, end):
    if end == ".zst":
        import zstd
        with open(path, "rb") as file:
            yield from zstd.pieces(file.read())
        return
    with gzip.open(path, "rb") if end else open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def lines(blocks):
    """Lines without their ends. A last line without an end counts too."""
    rest = b""
    for block in blocks:
        parts = (rest + block).split(b"\n") if rest else block.split(b"\n")
        rest = parts.pop()
        yield from parts
    if rest:
        yield rest


def content(directory):
    """{type: [lines, bytes, hash]} of the data files right in a directory; other files are passed by."""
    found = {}
    for name in sorted(os.listdir(directory)):
        match = DATA_FILE.match(name)
        if not match:
            continue
        count, size, total = found.get(match[1], (0, 0, 0))
        blake, from_bytes = hashlib.blake2b, int.from_bytes
        for line in lines(_blocks(os.path.join(directory, name), match[2])):
            count += 1
            size += len(line) + 1
            total += from_bytes(blake(line, digest_size=16).digest(), "little")
        if count:
            found[match[1]] = (count, size, total % MODULUS)
    return {kind: [count, size, f"{total:032x}"] for kind, (count, size, total) in found.items()}


def difference(expected, found):
    """In words, what differs; empty when nothing does."""
    words = []
    for kind in sorted(set(expected) | set(found)):
        mine, theirs = expected.get(kind), found.get(kind)
        if mine != theirs:
            words.append(f"{kind}: {theirs[0] if theirs else 0} lines, expected {mine[0] if mine else 0}"
                         + (" (same number, other content)" if mine and theirs and mine[0] == theirs[0] else ""))
    return "; ".join(words)


if __name__ == "__main__":
    json.dump(content(sys.argv[1]), sys.stdout)
