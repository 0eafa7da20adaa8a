"""Exports from stores of which nothing is in memory, beside a reader of the same ranges: the device's limit.

    cargo build --release
    python3 benches/cold/run.py --quick                     a store of 200 MB, some seconds a job
    python3 benches/cold/run.py --record benches/record     4,000 patients, 2 GB, about 6 GB of disk

Stores are made by `outpour synth` and `outpour pack`, Groups are those that `synth` puts in. Before each run every page of
the store and of its index leaves memory (fdatasync, POSIX_FADV_DONTNEED), and mincore(2) must say that none is left.
An export counts only if it has the bytes of the warm export. The limit is the time in which `reader.rs` reads the same
ranges at queue depths 1, 8 and 32 through the page cache; the depth of the fastest median counts, and the share is the median
of the shares of the rounds. Beside it stands the same past the page cache (O_DIRECT). The ranges are
those of the exported rows, found by comparing the export with the store line by line, or of the frames that hold them; near
ones are joined as `--gap` says. A second limit also reads the pages of the index that the export has read. Export and limits
take turns within a round, and each round begins elsewhere. Needs Python 3.11 and rustc.
"""

import argparse
import ctypes
import gzip
import hashlib
import json
import mmap
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = mmap.PAGESIZE
DEPTHS = (1, 8, 32)
JOBS = {"everybody": None, "10 %": "percent-10", "1 %": "percent-1", "one": "one"}
# Name of a store, arguments of `synth` or `pack`, compression of the export, store that it is packed from.
STORES = {
    "patient": (["--order", "clustered"], "none", None),
    "arrival": (["--order", "arrival"], "none", None),
    "mixed": (["--order", "arrival", "--layout", "mixed"], "none", None),
    "packed zst": (["--coding", "zstd"], "zstd", "patient"),
    "packed gz": (["--coding", "gzip"], "gzip", "patient"),
}
# Least share of the device's limit.
BARS = {("patient", "10 %"): 0.6, ("arrival", "1 %"): 0.5, ("patient", "everybody"): 0.8}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


def files_of(store):
    """Every file of a store and of its index that has bytes."""
    return [path for path in sorted(store.rglob("*")) if path.is_file() and path.stat().st_size > 0]


def data_files(store):
    """The files of a store, without its index."""
    return [path for path in files_of(store) if ".outpour" not in path.parts]


def resident_pages(path):
    """One byte a page of the file: its lowest bit says that the page is in memory."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        place = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if place in (None, ctypes.c_void_p(-1).value):
        raise SystemExit(f"{path}: cannot be mapped")
    pages = ctypes.create_string_buffer((size + PAGE - 1) // PAGE)
    failed = LIBC.mincore(place, size, pages)
    LIBC.munmap(place, size)
    if failed:
        raise SystemExit(f"{path}: mincore fails: {os.strerror(ctypes.get_errno())}")
    return pages.raw[: (size + PAGE - 1) // PAGE]


def drop(store):
    """Has every page of a store and of its index leave memory, and makes sure of it."""
    for path in files_of(store):
        with open(path, "rb") as file:
            os.fdatasync(file.fileno())
            for _ in range(20):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                left = sum(page & 1 for page in set(resident_pages(path)))
                if not left:
                    break
                time.sleep(0.05)
            else:
                raise SystemExit(f"{path}: pages stay in memory; does another process map the file?")


def index_ranges(store):
    """The parts of the index that are in memory: what an export read of it, by file."""
    ranges = {}
    for path in files_of(store):
        if ".outpour" in path.parts:
            found, pages, at = [], resident_pages(path), 0
            size = path.stat().st_size
            while (start := next((i for i in range(at, len(pages)) if pages[i] & 1), None)) is not None:
                at = start
                while at < len(pages) and pages[at] & 1:
                    at += 1
                found.append((start * PAGE, min(at * PAGE, size)))
            if found:
                ranges[path] = found
    return ranges


def joined(ranges, gap):
    """Ranges of pages, ascending, those with at most so many bytes between them as one."""
    result = []
    for start, end in ranges:
        start, end = start // PAGE * PAGE, (end + PAGE - 1) // PAGE * PAGE
        if result and start <= result[-1][1] + gap:
            result[-1][1] = max(result[-1][1], end)
        else:
            result.append([start, end])
    return result


def digests(directory):
    """Digest of each file of rows of an export."""
    found = {}
    for path in sorted(directory.iterdir()):
        if ".ndjson" in path.name:
            with open(path, "rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def lines_of(path):
    """The lines of a store file, decompressed, with their offsets and lengths."""
    at = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        for line in file:
            yield at, line
            at += len(line)


def wanted_rows(store, exported):
    """Offset and end of each exported row by store file, found by a walk through both in the same order."""
    streams = {}
    for path in sorted(exported.glob("*.ndjson*")):
        streams.setdefault(path.name.split(".")[0], []).append(path)

    def rows(paths):
        for path in paths:
            with open(path, "rb") as file:
                yield from file

    # The next row of each type: where a line of the store is one of them, it is that row.
    streams = {kind: rows(paths) for kind, paths in streams.items()}
    expected = {next(stream, None): stream for stream in streams.values()}
    expected.pop(None, None)
    found = {}
    for path in data_files(store):
        own = []
        for at, line in lines_of(path):
            if (stream := expected.pop(line, None)) is not None:
                own.append((at, at + len(line)))
                if (row := next(stream, None)) is not None:
                    expected[row] = stream
        if own:
            found[path] = own
    if expected:
        raise SystemExit(f"{store}: {len(expected)} files of the export hold rows that are not in the store in this order")
    return found


def frames(path):
    """Compressed and uncompressed offset of each frame of a packed file and of their end (src/store/packed/seek_table.rs)."""
    data = path.read_bytes()
    words = 14
    if path.suffix == ".zst":
        table = len(data) - words * 8
        trailer = struct.unpack_from(f"<{words}Q", data, table)
        parts = data[:table]
    else:
        # Parts of the table lie in the extra fields of empty gzip members, the trailer in the last one.
        members, end = [], len(data)
        while True:
            start = data.rfind(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff", 0, end - 20)
            (length,) = struct.unpack_from("<H", data, start + 14)
            if data[start + 12 : start + 14] != b"OP" or start + 16 + length + 10 != end:
                break
            members.append(data[start + 16 : start + 16 + length])
            end = start
        trailer = struct.unpack(f"<{words}Q", members[0])
        parts = b"".join(reversed(members[1:]))
    count, lengths, left, names = trailer[1], trailer[3], trailer[4], trailer[6]
    entry = 16 + 8 + 8 + 8 + 4 + (4 if path.suffix == ".gz" else 0)
    start = len(parts) - (count * entry + 16 + lengths + left * 24 + names)
    return [struct.unpack_from("<2Q", parts, start + i * 16) for i in range(count + 1)]


def frames_of_rows(path, rows):
    """Compressed ranges of the frames that hold rows, which are given by their uncompressed offsets."""
    table, at, found = frames(path), 0, []
    for start, _ in rows:
        while table[at + 1][1] <= start:
            at += 1
        if not found or found[-1][0] != table[at][0]:
            found.append((table[at][0], table[at + 1][0]))
    return found


def input_of(ranges, gap):
    """Ranges by file as the reader wants them, and their bytes and number."""
    lines, total, count = [], 0, 0
    for path, own in ranges.items():
        lines.append(str(path))
        for start, end in joined(own, gap):
            end = min(end, path.stat().st_size)
            lines.append(f"{start} {end}")
            total, count = total + end - start, count + 1
    return "\n".join(lines) + "\n", total, count


def read_ranges(reader, text, depth, direct):
    """Seconds in which ranges are read at a queue depth."""
    command = [str(reader), str(depth), "direct" if direct else "cached"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"the reader fails: {done.stderr}")
    return float(done.stdout.split()[0])


def export(args, store, job, compression, out):
    """Wall and CPU seconds and megabytes read of an export."""
    shutil.rmtree(out, ignore_errors=True)
    command = [str(args.outpour), "export", "--store", str(store), "--out", str(out), "--compress", compression]
    command += ["--digest", "none", "--no-sync", "--progress", "never", "--quiet", "--threads", str(args.threads)]
    command += ["--group", JOBS[job]] if JOBS[job] else ["--all-patients"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = 0
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}: {message.decode()}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_inblock * 512 / 1e6


def run(args, *command):
    """Runs outpour with these arguments."""
    subprocess.run([str(args.outpour), *map(str, command)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def make_store(args, home, name):
    """A store of the name under the directory, made if it is not there, with its index."""
    options, _, source = STORES[name]
    store = home / name.replace(" ", "-")
    if not store.is_dir():
        print(f"making {store}", file=sys.stderr)
        if source is None:
            run(args, "synth", "--out", store, "--patients", args.patients, *options, "--progress", "never")
        else:
            run(args, "pack", "--store", make_store(args, home, source), "--to", store, *options, "--progress", "never")
    run(args, "index", "--store", store, "--progress", "never")
    return store


def ranges_of(args, home, name, job, text_of):
    """What an export reads of the files of a store, by file, and digests of the warm export."""
    store, compression = make_store(args, home, name), STORES[name][1]
    out = args.out_dir / "outpour-cold-warm"
    export(args, store, job, compression, out)
    expected = digests(out)
    # The rows of a packed store are found in the gzip file of the same order, which Python can decode.
    plain = make_store(args, home, "packed gz") if name.startswith("packed") else store
    key = (str(plain), job)
    if key not in text_of:
        export(args, plain, job, "none", out)
        text_of[key] = wanted_rows(plain, out)
    shutil.rmtree(out)
    ranges = text_of[key]
    if name.startswith("packed"):
        own = {store / path.name.replace(".gz", ".zst" if compression == "zstd" else ".gz"): rows for path, rows in ranges.items()}
        ranges = {path: frames_of_rows(path, rows) for path, rows in own.items()}
    return store, ranges, expected


def measure(args, home, reader, name, job, text_of):
    """The figures of one job on one store."""
    store, ranges, expected = ranges_of(args, home, name, job, text_of)
    compression, out = STORES[name][1], args.out_dir / "outpour-cold"
    rows, rows_bytes, rows_count = input_of(ranges, args.gap)
    drop(store)
    export(args, store, job, compression, out)
    of_index = index_ranges(store)
    both, both_bytes, _ = input_of({**of_index, **ranges}, args.gap)
    # What the index adds is read at the greater depths only.
    limits = [("rows", depth, direct) for direct in (False, True) for depth in args.depths]
    limits += [("index", depth, False) for depth in args.depths[1:]]
    turns, samples = ["export", *limits], {turn: [] for turn in ["export", *limits]}
    for turn in range(args.rounds):
        at = turn * 3 % len(turns)
        for what in turns[at:] + turns[:at]:
            drop(store)
            if what == "export":
                samples[what].append(export(args, store, job, compression, out))
                if digests(out) != expected:
                    raise SystemExit(f"{name}, {job}: the cold export has other bytes than the warm one")
            else:
                samples[what].append(read_ranges(reader, rows if what[0] == "rows" else both, what[1], what[2]))
    warm = []
    for _ in range(args.rounds):
        warm.append(export(args, store, job, compression, out)[0])
    shutil.rmtree(out)
    walls = [wall for wall, _, _ in samples["export"]]
    result = {
        "store": name, "job": job, "wall_s": statistics.median(walls), "wall_range_s": [min(walls), max(walls)],
        "cpu_s": statistics.median(cpu for _, cpu, _ in samples["export"]),
        "read_mb": statistics.median(mb for _, _, mb in samples["export"]),
        "warm_s": statistics.median(warm), "rows_mb": rows_bytes / 1e6, "ranges": rows_count,
        "index_mb": (both_bytes - rows_bytes) / 1e6, "limits_s": {},
    }
    for what, how in (("rows", False), ("rows", True), ("index", False)):
        own = {limit: statistics.median(samples[limit]) for limit in limits if (limit[0], limit[2]) == (what, how)}
        best = min(own, key=own.get)
        name = f"{what}_{'direct' if how else 'cached'}"
        result[f"limit_{name}_s"] = own[best]
        result[f"limit_{name}_range_s"] = [min(samples[best]), max(samples[best])]
        # Within a round both met the same machine.
        result[f"share_{name}"] = statistics.median(
            limit / wall for limit, wall in zip(samples[best], walls, strict=True))
        for (_, depth, direct), seconds in own.items():
            result["limits_s"][f"{what}, {'direct' if direct else 'cached'}, depth {depth}"] = seconds
    return result


def table(results):
    """The results as a table of Markdown whose columns line up."""
    depths = ", ".join(map(str, results[0]["depths"])) if results else ""
    head = ["store", "job", "rows MB", "ranges", "index MB", "read MB", "wall s", "range", "CPU s", "warm s",
            f"limit {depths}", "of it", f"direct {depths}", "of it", "with index", "of it", "load"]
    lines = [head]
    for one in results:
        limits = [", ".join(f"{one['limits_s'][f'rows, {how}, depth {depth}']:.3f}" for depth in one["depths"])
                  for how in ("cached", "direct")]
        low, high = one["wall_range_s"]
        lines.append([one["store"], one["job"], f"{one['rows_mb']:.1f}", str(one["ranges"]), f"{one['index_mb']:.1f}",
                      f"{one['read_mb']:.1f}", f"{one['wall_s']:.3f}", f"{low:.3f}-{high:.3f}", f"{one['cpu_s']:.3f}",
                      f"{one['warm_s']:.3f}", limits[0], f"{one['share_rows_cached']:.2f}",
                      limits[1], f"{one['share_rows_direct']:.2f}", f"{one['limit_index_cached_s']:.3f}",
                      f"{one['share_index_cached']:.2f}", f"{one['load']:.1f}"])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    row = lambda cells: "| " + " | ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))) + " |"
    rule = "|" + "|".join("-" * (w + 1) + ("-" if i < 2 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([row(lines[0]), rule, *map(row, lines[1:])])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outpour", type=Path, default=HERE.parents[1] / "target/release/outpour")
    parser.add_argument("--stores", type=Path, help="directory for the stores, which stay; a temporary one without")
    parser.add_argument("--out-dir", type=Path, default=Path("/dev/shm"), help="where exports go: a tmpfs, or the same disk")
    parser.add_argument("--patients", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--depths", type=lambda text: [int(depth) for depth in text.split(",")], default=list(DEPTHS))
    parser.add_argument("--gap", type=int, default=16 << 10, help="bytes between two ranges that the limit reads as one")
    parser.add_argument("--only", default="", help="stores and jobs, as in 'patient:10 %%,arrival'")
    parser.add_argument("--seconds", type=float, default=1800, help="no further job begins after so long")
    parser.add_argument("--nice", type=int, default=0, help="priority of export and reader, where others use the machine: -15")
    parser.add_argument("--quick", action="store_true", help="400 patients, three rounds, two depths; nothing is promised of so little")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", type=Path, help="directory for the dated table and its JSON")
    args = parser.parse_args()
    if args.quick:
        args.patients, args.rounds, args.depths = 400, 3, [1, 32]

    if args.nice:
        os.nice(args.nice)
        # With autogroups a priority counts among the processes of a session only, and that of the session among sessions.
        if Path("/proc/self/autogroup").exists():
            Path("/proc/self/autogroup").write_text(str(args.nice))
    begun = time.monotonic()
    chosen = [tuple(item.split(":")) for item in args.only.split(",") if item]
    wanted = [(name, job) for name in STORES for job in JOBS if not chosen or (name, job) in chosen or (name,) in chosen]
    temporary = None
    if args.stores is None:
        # Beside what was built: a temporary directory of the system may lie in memory.
        (HERE.parents[1] / "target").mkdir(exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=HERE.parents[1] / "target")
        args.stores = Path(temporary.name)
    with tempfile.TemporaryDirectory() as built:
        reader = Path(built, "reader")
        subprocess.run(["rustc", "--edition", "2024", "-O", str(HERE / "reader.rs"), "-o", str(reader)], check=True)
        results, text_of = [], {}
        for name, job in wanted:
            if time.monotonic() - begun > args.seconds:
                print(f"{name}, {job}: not measured, the time is up", file=sys.stderr)
                continue
            print(f"{name}, {job}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            results.append({**measure(args, args.stores, reader, name, job, text_of), "depths": args.depths, "load": os.getloadavg()[0]})
    if temporary:
        temporary.cleanup()

    text, missed = table(results), []
    for one in results:
        bar = BARS.get((one["store"], one["job"]))
        if bar and not args.quick and one["share_rows_cached"] < bar:
            missed.append(f"{one['store']}, {one['job']}: {one['share_rows_cached']:.2f} of the device's limit, less than {bar}")
    document = {"date": str(date.today()), "patients": args.patients, "rounds": args.rounds, "results": results, "missed": missed}
    if args.record:
        (args.record / f"{date.today()}-cold.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1) if args.json else text)
    for line in missed:
        print(line, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
