"""What the exports promise, held against the medians of one run: a ratio, its target, met or missed."""

import os
import statistics

MIB = 1 << 20


def _row(rows, engine, mode, job, threads):
    for row in rows:
        if (row.engine, row.mode, row.job, row.threads) == (engine, mode, job, threads) and row.counts:
            return row
    return None


class Line:
    """One promise. `sense` is "at least" or "at most"; `value` is None where this run cannot tell."""

    def __init__(self, what, value, sense, target, unit="", note=""):
        self.what, self.value, self.sense, self.target = what, value, sense, target
        self.unit, self.note = unit, note

    @property
    def verdict(self):
        if self.value is None:
            return "not measured"
        return "met" if (self.value >= self.target if self.sense == "at least" else self.value <= self.target) else "missed"

    def as_dict(self):
        return {"what": self.what, "value": self.value, "sense": self.sense, "target": self.target, "unit": self.unit,
                "verdict": self.verdict, "note": self.note}


def _ratio(above, below, what):
    return above.median(what) / below.median(what) if above and below else None


def lines(kit, rival_titles, inflate, write, index_share):
    """`inflate` and `write`: CPU seconds a byte of libzstd on the packed frames and of write(2), or None."""
    # A run with fewer threads than processors does not tell what all threads do.
    rows, many = kit.rows, max(kit.options.threads) if max(kit.options.threads) >= os.cpu_count() else None
    get = lambda mode, job, threads=1: _row(rows, "outpour", mode, job, threads)
    found = []
    rivals = [row for row in rows if row.engine in rival_titles and (row.job, row.threads, row.mode) == ("10", 1, "cold")
              and row.counts]
    best = min(rivals, key=lambda row: row.median("cpu"), default=None)
    start = best and next((row for row in rows if (row.engine, row.mode) == (best.engine, "start") and row.counts), None)
    for mode, target in (("cold", 4), ("cold, structure", 6), ("warm", 100)):
        ours, note = get(mode, "10"), ""
        if best and ours:
            note = f"best: {best.engine}"
            if start:
                rest = (best.median("cpu") - start.median("cpu")) / ours.median("cpu")
                note += f"; {rest:.1f}× without its start"
        found.append(Line(f"10 % with `_since`, {mode}: CPU time of the best rival over ours",
                          _ratio(best, ours, "cpu"), "at least", target, "×", note))
    found += [
        Line("everybody, warm, all threads: wall time over `cp`",
             _ratio(get("warm", "all", many), _row(rows, "cp", "cp", "all", 1), "wall"), "at most", 0.8, "×"),
        Line("everybody, warm, one thread: CPU time over `cp`",
             _ratio(get("warm", "all"), _row(rows, "cp", "cp", "all", 1), "cpu"), "at most", 1.3, "×"),
        Line("everybody, warm, all types in one file: CPU time over `cp`",
             _ratio(get("warm, one mixed file", "all"), _row(rows, "cp", "cp", "all", 1), "cpu"), "at most", 1.8, "×"),
        Line("1 %, warm, order of arrival: CPU time over `cp`",
             _ratio(get("warm, order of arrival", "1"), _row(rows, "cp", "cp", "1", 1), "cpu"), "at most", 3, "×"),
        Line("everybody, warm, synced, all threads: wall time over `cp` and `sync`",
             _ratio(get("warm, synced", "all", many), _row(rows, "cp", "cp, synced", "all", 1), "wall"), "at most", 1.1, "×"),
        Line("one patient, warm, start to exit: wall time",
             get("warm", "one") and get("warm", "one").median("wall") * 1000, "at most", 20, " ms"),
        Line("one patient, warm: wall time over that of a store an eighth as large",
             _ratio(get("warm", "one"), get("warm, an eighth of the store", "one"), "wall"), "at most", 1.5, "×"),
    ]
    copy = _row(rows, "cp", "cp", "all", 1)
    found += [
        Line("everybody, packed to zst: wall time of `cp` of the plain files over ours",
             _ratio(copy, get("packed to zst", "all", many), "wall"), "at least", 8, "×"),
        Line("everybody, packed and a delta of 1 % to zst: wall time over `cp` of the plain files",
             _ratio(get("packed and delta to zst", "all", many), copy, "wall"), "at most", 1, "×"),
    ]
    plain, share = get("packed to plain", "all"), None
    if plain and inflate and write:
        share = kit.bytes_of("all") * (inflate + write) / plain.median("cpu")
    found.append(Line("everybody, packed to plain, one thread: share of libzstd's and write's CPU time", share,
                      "at least", 0.85, "×"))
    ours = [row for row in rows if row.engine == "outpour" and row.counts and row.sample]
    fullest = max(ours, key=lambda row: row.most("anon"), default=None)
    found.append(Line("memory, RssAnon + RssShmem, most of all rows", fullest and fullest.most("anon") / MIB, "at most",
                      256, " MiB", fullest.key if fullest else ""))
    found.append(Line("index over plain bytes", index_share and index_share * 100, "at most", 6, " %"))
    return found


def median(values):
    return statistics.median(values) if values else None
