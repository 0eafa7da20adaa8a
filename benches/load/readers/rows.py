"""Reads URLs with a Python client, which decodes gzip itself, and prints the SHA-256 of what they hold and the number of
lines: `rows.py httpx|requests|aiohttp URL…`; without URLs the client's version.
"""

import hashlib
import importlib
import sys

name, urls = sys.argv[1], sys.argv[2:]
library = importlib.import_module(name)
HEADERS = {"Accept-Encoding": "gzip"}


def told(pieces):
    digest, rows = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        rows += piece.count(b"\n")
    print(digest.hexdigest(), rows)


def judge(url, status, headers):
    if status != 200 or headers.get("Content-Encoding") != "gzip":
        raise SystemExit(f"{url}: {status} {dict(headers)}")


if not urls:
    print(library.__version__)
elif name == "httpx":
    for url in urls:
        with library.stream("GET", url, headers=HEADERS) as answer:
            judge(url, answer.status_code, answer.headers)
            told(answer.iter_bytes())
elif name == "requests":
    for url in urls:
        with library.get(url, headers=HEADERS, stream=True) as answer:
            judge(url, answer.status_code, answer.headers)
            told(answer.iter_content(1 << 16))
elif name == "aiohttp":
    import asyncio

    async def main():
        async with library.ClientSession(headers=HEADERS) as session:
            for url in urls:
                async with session.get(url) as answer:
                    judge(url, answer.status, answer.headers)
                    told([piece async for piece in answer.content.iter_any()])

    asyncio.run(main())
