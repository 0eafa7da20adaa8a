"""What HTTP clients of several languages make of gzip: of joined files that the service sends, and of a packed store's own
files, sent by nginx. Each one must give the rows whole. curl takes no second member of anybody's gzip file (its error 23, after
the rows of the first one), and a packed store's file has them: it is held to joined files alone.
"""

import gzip
import hashlib
import re
import subprocess
import sys
from pathlib import Path

from collect import Nginx, installed, settings
from service import Client, Service

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYTHON_CLIENTS = ("httpx", "requests", "aiohttp")


def content(text):
    return f"{hashlib.sha256(text).hexdigest()} {text.count(10)}"


def run(command, **more):
    """Standard output of a program; None where it is not installed or does not know what it is asked for."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, **more)
    except FileNotFoundError:
        return None, "not installed"
    errors = done.stderr.decode(errors="replace").strip()
    return (done.stdout, errors) if done.returncode == 0 else (None, errors.splitlines()[-1] if errors else str(done.returncode))


def programs(args):
    """(name, how its version is asked for, how URLs are read); `curl` gives the rows themselves."""
    python, scripts = args.readers_python, HERE / "readers"
    for name in PYTHON_CLIENTS:
        command = [python, str(scripts / "rows.py"), name]
        yield name, command, command
    yield "Go, net/http and compress/gzip", ["go", "version"], ["go", "run", str(scripts / "rows.go")]
    yield "Java, HttpClient and GZIPInputStream", ["java", "-version"], ["java", str(scripts / "Rows.java")]
    yield "Node, fetch", ["node", "--version"], ["node", str(scripts / "rows.mjs")]
    yield "curl --compressed", ["curl", "--version"], ["curl", "-sSf", "--compressed"]


def readers(args, _):
    """Rows of every file as each client reads them, beside those that Python's gzip finds in the file on the disk."""
    packed = Path(args.scratch, "packed-bundled")
    command = ["pack", "--store", ROOT / "testdata/stores/synthea-r4-100", "--index-dir", Path(args.scratch, "index-100"),
               "--to", packed, "--coding", "gzip", "--no-sync", "--progress", "never"]
    subprocess.run([args.binary, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows, broken, nginx = [], [], None
    with Service(args.binary, packed, Path(args.scratch, "packed-bundled-index"), args.scratch, settings("gzip")) as service:
        client = Client(service)
        job = client.kick_off("/Group/ten/$export")
        joined = {}
        for file in client.finished(job, 0.05)["output"]:
            head = client.ask("GET", "/" + file["url"].split("/", 3)[3], {"Accept-Encoding": "gzip"})[1]
            name = re.search('filename="([^"]+)"', head["Content-Disposition"])[1]
            text = gzip.decompress((service.data / "files" / job.rsplit("/", 1)[1] / "out" / name).read_bytes())
            joined[file["url"]] = content(text)
            if text.count(10) != file["count"]:
                broken.append(f"{name}: {text.count(10)} rows, {file['count']} in the manifest")
        sources = {"joined": joined}
        if installed():
            nginx = Nginx(packed)
            sources["packed store"] = {f"http://127.0.0.1:{nginx.port}/{file.name}": content(gzip.decompress(file.read_bytes()))
                                       for file in sorted(packed.glob("*.ndjson.gz"))}
        try:
            for name, version, command in programs(args):
                told, errors = run(version)
                if told is None:
                    print(f"skipped: {name}: {errors}", file=sys.stderr)
                    rows.append({"reader": name, "version": f"not tried: {errors}"})
                    continue
                row = {"reader": name, "version": (told.decode() or errors).splitlines()[0][:60]}
                for what, expected in sources.items():
                    if name.startswith("curl") and what != "joined":
                        row[what] = "not taken: several members"
                        continue
                    if name.startswith("curl"):
                        found = [run([*command, url]) for url in expected]
                        found = [content(text) if text is not None else errors for text, errors in found]
                    else:
                        text, errors = run([*command, *expected])
                        found = text.decode().splitlines() if text is not None else [errors] * len(expected)
                    same = sum(mine == theirs for mine, theirs in zip(found, expected.values()))
                    row[what] = f"{same} of {len(expected)}"
                    if same < len(expected):
                        first = next(mine for mine, theirs in zip(found, expected.values()) if mine != theirs)
                        row[f"{what}, another answer"] = first
                        broken += [f"{name}, {what}: {first}"]
                rows.append(row)
        finally:
            if nginx:
                nginx.stop()
    return {"files": {what: len(files) for what, files in sources.items()}, "read by": rows}, broken + service.errors[:5]
