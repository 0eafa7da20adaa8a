"""The record of a run: machine, method in a line each, rows and promises, as Markdown for people and JSON for programs."""

import os
import platform
import statistics
import subprocess

GIB, MIB, GB = 1 << 30, 1 << 20, 1e9


def machine(path):
    """Words about the machine; `path` tells the file system."""
    read = lambda name: open(name).read()
    cpu = next((line.split(":")[1].strip() for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")),
               platform.processor())
    memory = int(read("/proc/meminfo").split()[1]) * 1024
    kind = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", path], capture_output=True, text=True).stdout.strip()
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory / GIB, 1), "kernel": platform.release(),
            "file_system": kind, "load": [round(load, 2) for load in os.getloadavg()]}


def _seconds(value):
    return f"{value:.3f}" if value < 0.0995 else f"{value:.2f}" if value < 9.95 else f"{value:.1f}"


def _number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def rate(row, kit):
    """Store bytes per CPU-second, in GB."""
    return kit.store.bytes / GB / max(row.median("cpu"), 1e-6)


def share(row, kit, bounds):
    """Of the physical bound, by CPU time."""
    if not row.bound or not bounds.get("read") or not bounds.get("write"):
        return None
    least = row.answer_bytes * bounds["write"] + (kit.store.bytes * bounds["read"] if row.bound == "cold" else 0)
    return least / max(row.median("cpu"), 1e-6)


def order(rows):
    """Fastest first, those without figures last."""
    return sorted(rows, key=lambda row: row.median("cpu") if row.counts else float("inf"))


def rows_table(kit, rows, bounds, rivals):
    lines = ["| what | threads | wall s | CPU s | user s | least CPU s | memory MiB | store GB per CPU s | of the bound |"
             " best rival's CPU time over this |", "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for row in order(rows):
        name = row.mode if row.engine == "cp" else f"{row.engine}, {row.mode}"
        name = f"**{name}**" if row.engine == "outpour" else name
        if not row.counts:
            lines.append(f"| {name} | {row.threads} | {row.words or 'did not run'} | | | | | | | |")
            continue
        peers = [peer.median("cpu") for peer in rows if peer.engine in rivals and peer.mode == "cold" and peer.counts
                 and peer.threads == row.threads]
        of_bound = share(row, kit, bounds)
        memory = f"{row.most('anon') / MIB:,.0f}" if row.sample else ""
        lines.append(
            f"| {name} | {row.threads} | {_seconds(row.median('wall'))} | {_seconds(row.median('cpu'))} | "
            f"{_seconds(row.median('user'))} | {_seconds(row.least('cpu'))} | {memory} | {_number(rate(row, kit))} | "
            f"{'' if of_bound is None else f'{of_bound:.0%}'} | "
            f"{_number(min(peers) / max(row.median('cpu'), 1e-6)) + ' ×' if peers else ''} |")
    return lines


def losses(kit, rivals):
    """Where another one is ahead of us, in CPU or in wall time: cold against cold, warm against loaded and `cp`."""
    found = []
    for mine in kit.rows:
        if mine.engine != "outpour" or mine.mode not in ("cold", "warm", "warm, synced", "indexed, from disk") or not mine.counts:
            continue
        for row in kit.rows:
            peer = {"cold": row.engine in rivals and row.mode == "cold",
                    "warm": row.mode in ("cp", "loaded"), "warm, synced": row.mode == "cp, synced",
                    "indexed, from disk": row.mode == "cp, from disk"}[mine.mode]
            same = row.job == mine.job and (row.threads == mine.threads or row.engine == "cp")
            if not (peer and same and row.counts):
                continue
            behind = [f"{words} {_number(mine.median(what) / max(row.median(what), 1e-6))} ×"
                      for what, words in (("cpu", "CPU"), ("wall", "wall")) if mine.median(what) > row.median(what) * 1.005]
            if behind:
                title = next((job.title for job in kit.jobs if job.name == mine.job), mine.job)
                name = row.mode if row.engine == "cp" else f"{row.engine}, {row.mode}"
                found.append(f"{title}, {mine.threads} thread{'s' if mine.threads > 1 else ''}, {mine.mode}: "
                             f"{' and '.join(behind)} of {name}")
    return found


def summary(run, record):
    """The few rows of the README, from a run's record: the job of 10 %, one thread, and the plot."""
    rows = [row for row in run["rows"] if (row["job"], row["threads"]) == ("10", 1) and row["samples"] and not row["words"]
            and row["mode"] not in ("start", "cp, synced", "warm, synced")]
    middle = lambda row, what: statistics.median(sample[what] for sample in row["samples"])
    store, box = run["store"]["bytes"] / GB, run["machine"]
    lines = [f"![Store bytes for each second of CPU time, outpour and its rivals, log scale]({record}.svg)", "",
             f"| Group of 10 % with `_since` from {store:.2f} GB, one thread | wall s | CPU s | memory MiB | store GB per CPU s |",
             "|---|---:|---:|---:|---:|"]
    for row in sorted(rows, key=lambda row: middle(row, "cpu")):
        name = {"cp": "`cp` of the resulting files"}.get(row["engine"], f"{row['engine']}, {row['mode']}")
        name = f"**{name}**" if row["engine"] == "outpour" else name
        memory = max(sample["anon"] for sample in row["samples"]) / MIB
        lines.append(f"| {name} | {_seconds(middle(row, 'wall'))} | {_seconds(middle(row, 'cpu'))} | {memory:,.0f} | "
                     f"{_number(store / max(middle(row, 'cpu'), 1e-6))} |")
    measured = sum(1 for line in run["targets"] if line["value"] is not None)
    met = sum(1 for line in run["targets"] if line["verdict"] == "met")
    lines += ["", f"{box['cpu']}, {box['cores']} cores, {box['memory_gib']} GiB, Linux {box['kernel']}, {box['file_system']}, "
              f"page cache warm, medians of {run['rounds']} rounds, {run['date']}; "
              + ", ".join(f"{name} {version}" for name, version in run["versions"].items() if name in
                          {row["engine"] for row in rows}) + ". Every answer was compared line by line. "
              f"{met} of the {measured} promises measured were met; all rows in [the record]({record}.md)."]
    return "\n".join(lines)


OWN_ROWS = ("cold", "warm", "packed to plain", "packed to zst", "packed to gzip, joined", "plain to gzip, coded",
            "indexed, from disk", "packed to gzip, from disk", "cp", "cp, from disk")


def own_summary(run, record):
    """The rows of a run without rivals for the README: outpour's ways to an answer, one thread, beside `cp`; those from
    the disk are not compared with those from memory."""
    store, box, middle = run["store"]["bytes"] / GB, run["machine"], lambda of, what: statistics.median(
        sample[what] for sample in of["samples"])
    names = {"10": "a Group of 10 % with `_since`", "all": "everybody"}
    found = {(row["mode"], row["job"]): row for row in run["rows"]
             if row["threads"] == 1 and row["samples"] and not row["words"]}
    jobs = [job for job in names if ("warm", job) in found]
    lines = [f"| {store:.2f} GB, one thread | " + " | ".join(f"{names[job]}: wall s | CPU s | answer MB" for job in jobs) + " |",
             "|---|" + "---:|---:|---:|" * len(jobs)]
    modes = [mode for mode in OWN_ROWS if any((mode, job) in found for job in jobs)]
    for mode in sorted(modes, key=lambda mode: ("from disk" in mode, middle(found[mode, jobs[-1]], "cpu"))):
        name = mode.replace("cp", "`cp` of the plain answer") if mode.startswith("cp") else f"**{mode}**"
        cells = []
        for job in jobs:
            row = found[mode, job]
            cells += [_seconds(middle(row, "wall")), _seconds(middle(row, "cpu")), f"{row['answer_bytes'] / 1e6:,.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines + ["", f"{box['cpu']}, {box['cores']} cores, {box['memory_gib']} GiB, Linux {box['kernel']}, "
                              f"{box['file_system']}, load {box['load'][0]} at the start and {run['load_end'][0]} at the end, medians of "
                              f"{run['rounds']} rounds, {run['date']}; every answer was compared line by line. *Cold* makes the index, too; "
                              "*from disk*: the index is there, and no page of it or of the store is in memory. All rows in "
                              f"[the record]({record}.md)."])


def markdown(run, kit, bounds, rivals):
    box = run["machine"]
    text = [
        f"# {run['date']}: outpour {'and its rivals' if rivals else 'without its rivals'}", "",
        f"{box['cpu']}, {box['cores']} cores, {box['memory_gib']} GiB, Linux {box['kernel']}, {box['file_system']}; load "
        f"{box['load'][0]} when it began, {run['load_end'][0]} when it ended. "
        + ", ".join(f"{name} {version}" for name, version in run["versions"].items()) + ".", "",
        f"Store: {run['store']['rows']:,} rows of {run['store']['patients']:,} patients, {run['store']['bytes'] / GB:.2f} GB, "
        f"one type a file, no updates, no deletions, page cache warm. Medians of {run['rounds']} round{'s' if run['rounds'] > 1 else ''} in turns, a fresh "
        "process each; memory is the most of RssAnon + RssShmem over the process tree. Every answer was compared by "
        "content with the others before its figure counted.", "",
        "Physical bound: " + "; ".join(run["bounds_words"]) + ".", "", "## Promises", "",
        "| what | is | should be | |", "|---|---:|---:|---|"]
    if run["store"]["bytes"] < GB:
        text[-2:-2] = ["They are about stores of 2 GB; this one is too small to tell.", ""]
    for line in run["targets"]:
        value = "" if line["value"] is None else _number(line["value"]) + line["unit"]
        note = f" ({line['note']})" if line["note"] else ""
        text.append(f"| {line['what']}{note} | {value} | {line['sense']} {line['target']}{line['unit']} | "
                    f"{line['verdict']} |")
    text += ["", "## Rows we lose", ""] + ([f"- {words}" for words in run["losses"]] or ["None in this run."])
    for job in kit.jobs:
        for threads in kit.options.threads:
            rows = [row for row in kit.rows if row.job == job.name and row.threads == threads and row.mode != "start"]
            text += ["", f"## {job.title}: {kit.rows_of(job.name):,} rows, {kit.bytes_of(job.name) / GB:.3f} GB, "
                     f"{threads} thread{'s' if threads > 1 else ''}", ""]
            text += rows_table(kit, rows, bounds, rivals)
    others = [row for row in kit.rows if row.job in ("one", "store") and row.mode != "start"]
    if others:
        text += ["", "## One patient, and what is made beforehand", ""] + rows_table(kit, others, bounds, [])
    starts = [row for row in kit.rows if row.mode == "start" and row.counts]
    if starts:
        text += ["", "Starting and stopping without any file (in every figure above): "
                 + ", ".join(f"{row.engine} {_seconds(row.median('cpu'))} CPU s" for row in starts) + "."]
    text += ["", "## Formulations", "", "CPU seconds of the trial on one thread; the fastest was kept.", "",
             "| engine | formulation | CPU s | |", "|---|---|---:|---|"]
    for trial in run["formulations"]:
        cpu = _seconds(trial["cpu"]) if trial["cpu"] is not None else ""
        text.append(f"| {trial['engine']} | {trial['name']}: {trial['what']} | {cpu} | "
                    f"{trial['words'] or ('kept' if trial['kept'] else '')} |")
    text += ["", "What each one checks of a line: "
             + "; ".join(f"{engine}: {words}" for engine, words in run["validates"].items()) + "."]
    if run["notes"]:
        text += ["", "## Not measured", ""] + [f"- {note}" for note in run["notes"]]
    return "\n".join(text) + "\n"
