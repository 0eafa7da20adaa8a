#!/usr/bin/env python3
"""Makes the files of this directory: make.py BINARY, run in an empty directory. BINARY is outpour as of index version 3.

The service runs under a clock that stands in 2024 (clock.c below, preloaded), so that its instants lie in the past."""
import gzip, json, os, re, resource, shutil, signal, subprocess, sys, time, urllib.request

O = os.path.abspath(sys.argv[1])
T1, T2, T3 = ("2024-%02d-01T00:00:00Z" % month for month in (2, 3, 4))

def row(kind, id, day, **more):
    subject = {} if kind in ("Patient", "Group") else {"subject": {"reference": "Patient/" + more.pop("of", "a")}}
    return json.dumps({"resourceType": kind, "id": id, "meta": {"lastUpdated": day + "T00:00:00Z"}, **subject, **more},
                      separators=(",", ":")) + "\n"

def write(name, bytes, how="wb"):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, how) as file:
        file.write(bytes)

def zstd(text):
    return subprocess.run(["zstd", "-q", "-c", "--check"], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout

def run(*args, **more):
    return subprocess.run([O, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more).returncode

def export(out, *args, who="--all-patients", store="store", index="index", **more):
    return run("export", "--store", store, "--index-dir", index, "--out", out, *([who] if isinstance(who, str) else who),
               "--base-url", "https://files.example.org/", "--progress", "never", *args, **more)

# 1. The store, and a first snapshot of it.
people = "abcdefgh"
write("store/Patient.ndjson", "".join(row("Patient", p, "2024-01-0%d" % (i + 1)) for i, p in enumerate(people)).encode())
write("store/Group.ndjson", row("Group", "some", "2024-01-02", type="person", actual=True,
      member=[{"entity": {"reference": "Patient/" + p}} for p in "abcd"]).encode())
write("store/Observation.ndjson", "".join(row("Observation", "o%d" % i, "2024-01-%02d" % (i + 1), of=people[i % 8])
      for i in range(16)).encode())
write("store/Condition.ndjson.gz", gzip.compress("".join(row("Condition", "c%d" % i, "2024-01-%02d" % (i + 1), of=people[i])
      for i in range(4)).encode(), mtime=0))
write("store/Encounter.ndjson.zst", zstd("".join(row("Encounter", "e%d" % i, "2024-01-%02d" % (i + 1), of=people[i])
      for i in range(4))))
assert export("out", "--as-of", T1) == 0
# 2. Rows that come late: in a new file, behind a plain file, in new members of compressed ones; and one that is new.
write("store/late/Observation.ndjson", (row("Observation", "late1", "2024-01-20") +
      row("Observation", "late2", "2024-01-21", of="b")).encode())
write("store/Observation.ndjson", row("Observation", "late3", "2024-01-22", of="c").encode(), "ab")
write("store/Condition.ndjson.gz", gzip.compress(row("Condition", "late4", "2024-01-23", of="d").encode(), mtime=0), "ab")
write("store/Encounter.ndjson.zst", zstd(row("Encounter", "late5", "2024-01-24", of="e")), "ab")
write("store/Observation.ndjson", row("Observation", "new", "2024-02-10", of="f").encode(), "ab")
shutil.rmtree("out")
for _ in range(2):  # the second time its files are old enough for stamps; then the snapshot goes to the note
    assert run("index", "--store", "store", "--index-dir", "index") == 0
    time.sleep(0.1)
assert export("out", "--since", T1, "--as-of", T2) == 0 and os.path.exists("index/generation.note")
shutil.rmtree("out")
# 3. What this version answers, on a copy of the index; the packed store; an export that meets a limit of file sizes.
shutil.copytree("index", "copy")
assert run("pack", "--store", "store", "--to", "packed", "--index-dir", "copy") == 0
for name, arguments in (("since-first", ("--since", T1)), ("since-second", ("--since", T2)), ("whole", ())):
    for store in ("store", "packed"):
        assert export("out", "--as-of", T3, *arguments, store=store, index="copy" if store == "store" else "copy2") == 0
        lines = [line for file in sorted(os.listdir("out")) if file.endswith(".ndjson") for line in open("out/" + file, "rb")]
        write("expected/%s/%s.ndjson" % (store, name), b"".join(lines))
        shutil.rmtree("out")
limit = lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (2700, 2700)))
code = export("interrupted", "--since", T1, "--as-of", T3, "--max-file-resources", "2", index="copy", preexec_fn=limit)
assert code == 3 and not os.path.exists("interrupted/manifest.json"), code
for name in ("copy", "copy2"):
    shutil.rmtree(name, ignore_errors=True)
# 4. The data directory of a service, stopped with a job done and one accepted, and the index that it used.
write("clock.c", b"""#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*own)(clockid_t, struct timespec *);
    if (!own) own = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = own(clock, time);
    if (!done && clock == CLOCK_REALTIME) time->tv_sec = 1714564800 + time->tv_sec % 3600;
    return done;
}
""")
subprocess.run(["cc", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"], check=True)
write("serve.toml", b"[jobs]\nthreads = 1\n[ig]\nkeep_seconds = 3153600000\n[limits]\npolls_burst = 1000\n")
shutil.copytree("index", "service-index")
service = subprocess.Popen([O, "serve", "--config", "serve.toml", "--store", "store", "--index-dir", "service-index", "--data", "data",
    "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True, env=dict(os.environ, LD_PRELOAD=os.path.abspath("clock.so")))
base = next(filter(None, (re.search("outpour serves on ([^;]*);", line) for line in service.stderr))).group(1).strip() + "/fhir"

def ask(url, method="GET", body=None, **headers):
    headers = {"Accept": "application/fhir+json", **({"Content-Type": "application/fhir+json"} if body else {}), **headers}
    return urllib.request.urlopen(urllib.request.Request(url, method=method, data=body, headers=headers))

group = json.dumps({"resourceType": "Group", "type": "person", "actual": True,
                    "member": [{"entity": {"reference": "Patient/" + p}} for p in "ab"]}).encode()
made = ask(base + "/Group", "POST", group).headers["Location"]
name = re.search("Group/([^/]*)", made).group(1)
status = ask(base + "/Group/%s/$export?_since=%s" % (name, T1), Prefer="respond-async").headers["Content-Location"]
while (answer := ask(status)).status == 202:
    time.sleep(0.1)
manifest = json.loads(answer.read())
texts = [ask(item["url"], Accept="application/fhir+ndjson").read() for item in manifest["output"]]
write("expected/job-done.json", json.dumps({"status": status[len(base):], "files": sorted(text.decode() for text in texts)}, indent=1).encode())
status = ask(base + "/Group/%s/$export" % name, Prefer="respond-async").headers["Content-Location"]
service.send_signal(signal.SIGKILL)
service.wait()
write("expected/job-accepted.json", json.dumps({"status": status[len(base):]}, indent=1).encode())
for name in ("clock.c", "clock.so"):
    os.remove(name)
