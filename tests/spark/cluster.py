"""Exports in tasks by Apache Spark, with what goes wrong on clusters, each beside one machine's export of the same request:
the same rows in the same files, the same counts, deletions, messages and manifest, but for URLs and names of attempts.

    VENV/bin/python cluster.py OUTPOUR STORE SCRATCH [CASE...]

VENV has pyspark (3.5 or 4). Needs Java, and Linux, whose loopback network has 127.0.0.2 and 127.0.0.3. Prints a line a case, with
its seconds; ends with 1 if one fails. Two cases run only when they are named: `connect`, which needs pyspark[connect], and `cost`,
which measures Spark and asserts nothing.
"""

import contextlib
import glob
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pyspark

DRIVER = pathlib.Path(__file__).resolve().parents[2] / "src/spark/driver.py"
AS_OF = "2026-01-01T00:00:00Z"
# Files of 1 MB, so that there are many; of gzip, so that a task takes long enough to be met while it writes; since a time, so that
# deletions are listed.
REQUEST = ["--all-patients", "--as-of", AS_OF, "--since", "2000-01-01", "--max-file-bytes", "1MB", "--compress", "gzip"]
# Seconds after which a case has failed.
PATIENCE = 300
SPARK_HOME = os.path.dirname(pyspark.__file__)
LOCAL_CLUSTER = "local-cluster[2,1,1024]"
# Hangs, and ends with the thread that started it, as `run-task` does.
HANG = "exec setpriv --pdeathsig KILL sleep 600"
# What is done to the first attempt of a task: a shell script in place of the binary, `TASK` and `ATTEMPT` being those of Spark.
WRAPPER = """#!/bin/sh
case "$*" in run-task*)
  task=$(echo "$*" | sed 's/.*--task \\([0-9]*\\).*/\\1/')
  echo "$task $0 $*" >> {scratch}/calls
  before=$(grep -c "^$task " {scratch}/calls)
  if [ "$task" = {task} ] && [ "$before" -le {times} ]; then
    echo $$ > {scratch}/met
    {what}
  fi ;;
esac
exec {outpour} "$@"
"""


class Case:
    """A case in a directory of its own."""

    def __init__(self, name, outpour, store, scratch):
        self.outpour, self.store = outpour, store
        self.scratch = scratch / name
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        self.job = self.scratch / "job"
        self.log = self.scratch / "log"

    def run(self, *words, codes=(0,)):
        done = subprocess.run([self.outpour, *map(str, words)], capture_output=True, text=True)
        assert done.returncode in codes, (words, done)

    def plan(self, tasks):
        self.run("plan", "--store", self.store, "--job", self.job, "--tasks", tasks, *REQUEST, codes=(0, 1))

    def wrapped(self, task, what, times=1):
        """The binary, but what happens to the first attempts of a task."""
        path = self.scratch / "outpour"
        path.write_text(WRAPPER.format(scratch=self.scratch, task=task, what=what, times=times, outpour=self.outpour))
        path.chmod(0o755)
        return path

    def calls(self, task):
        return sum(1 for line in (self.scratch / "calls").read_text().splitlines() if line.startswith("%d " % task))

    def met(self):
        """The process of the wrapper once it does what it is made for."""
        return int(wait_for(lambda: (self.scratch / "met").exists() and (self.scratch / "met").read_text().strip()))

    def submit(self, master, *conf, outpour=None, driver=DRIVER, more=()):
        """Starts spark-submit in a process group of its own."""
        words = [SPARK_HOME + "/bin/spark-submit", "--master", master, "--conf", "spark.ui.enabled=false"]
        for setting in ("spark.driver.host=127.0.0.1", "spark.driver.bindAddress=127.0.0.1", *conf):
            words += ["--conf", setting]
        words += [driver, "--job", self.job, "--outpour", outpour or self.outpour, *more]
        return self.start(words)

    def start(self, words):
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                list(map(str, words)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), start_new_session=True
            )

    def end(self, process, code=0):
        found = process.wait(PATIENCE)
        assert found == code, "ended with %d in place of %d: %s" % (found, code, self.log)

    def equals(self, expected):
        """Compares the committed job with an export."""
        found = published(self.job)
        assert found == expected, "the job has other files than the export: %s" % self.job
        self.run("verify", self.job)
        status = json.loads((self.job / "status.json").read_text())
        assert status["status"] == "Successful" and status["percent"] == 100, status
        listed = {name for name in glob.glob("data/*/*", root_dir=self.job) if os.path.isfile(self.job / name)}
        record_names = {file["file"] for record in self.records() for file in record["files"]}
        assert listed == record_names, "what lost is still there: %s" % (listed ^ record_names)

    def records(self):
        return [json.loads(path.read_text()) for path in sorted((self.job / "tasks").glob("[0-9]*.json"))]


def environment():
    own = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    return {**os.environ, **own, "SPARK_HOME": SPARK_HOME, "PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"]}


def published(directory):
    """The files that a manifest lists, with the digests of their rows, and what it says beside."""
    manifest = json.loads((directory / "manifest.json").read_text())
    prefix = "file://%s/" % directory.resolve()
    files = []
    for name in ["output", "deleted", "error"]:
        for item in manifest.pop(name, []):
            data = (directory / item["url"].removeprefix(prefix)).read_bytes()
            rows = hashlib.sha256(gzip.decompress(data)).hexdigest()
            files.append([name, item["type"], item.get("count"), item.get("extension"), rows])
    return files, manifest


def wait_for(look, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.002)
    raise AssertionError("waited in vain for %d s" % seconds)


def parents(process):
    """A process and those above it."""
    while process > 1:
        yield process
        try:
            process = int(pathlib.Path("/proc/%d/stat" % process).read_text().rsplit(") ")[-1].split()[1])
        except OSError:
            return


def is_gone(process):
    try:
        return pathlib.Path("/proc/%d/stat" % process).read_text().rsplit(") ")[-1][0] in "ZX"
    except OSError:
        return True


def executor_of(process):
    """The JVM of the executor above a process."""
    def is_executor(one):
        return b"CoarseGrainedExecutorBackend" in pathlib.Path("/proc/%d/cmdline" % one).read_bytes()

    return next(one for one in parents(process) if is_executor(one))


def number_of_tasks(case, expected):
    """1, 3, 8 and 21 tasks by two executors."""
    for tasks in [1, 3, 8, 21]:
        shutil.rmtree(case.job, ignore_errors=True)
        case.plan(tasks)
        begun = time.monotonic()
        case.end(case.submit(LOCAL_CLUSTER))
        case.equals(expected)
        assert len(case.records()) == tasks
        print("  %d tasks in %.1f s" % (tasks, time.monotonic() - begun), flush=True)


def failed_once(case, expected):
    """The first attempt of task 3 fails with 74."""
    case.plan(8)
    case.end(case.submit(LOCAL_CLUSTER, outpour=case.wrapped(3, "exit 74")))
    case.equals(expected)
    assert case.calls(3) == 2 and re.match(r"s\d+-1-", case.records()[3]["attempt"]), case.records()[3]["attempt"]


def failed_always(case, expected):
    """All four attempts of task 3 fail; then the driver is started again, with a binary that works."""
    case.plan(8)
    case.end(case.submit(LOCAL_CLUSTER, outpour=case.wrapped(3, "echo 'the disk is full' >&2; exit 74", 4)), 75)
    assert case.calls(3) == 4 and not (case.job / "manifest.json").exists()
    status = json.loads((case.job / "status.json").read_text())
    assert status["status"] == "Failed" and "task 3 ended with 74: the disk is full" in status["reason"], status
    case.end(case.submit("local[2,4]"))
    case.equals(expected)


def fatal(case, expected):
    """Task 3 ends with 65, which is not tried again."""
    case.plan(8)
    case.end(case.submit(LOCAL_CLUSTER, outpour=case.wrapped(3, "exit 65", 9)), 65)
    assert case.calls(3) == 1 and not (case.job / "manifest.json").exists()
    assert "task 3 ended with 65" in case.log.read_text()


def killed_executor(case, expected):
    """The executor of task 2 is killed while the task runs; the task ends with it."""
    case.plan(8)
    driver = case.submit(LOCAL_CLUSTER, outpour=case.wrapped(2, HANG))
    task = case.met()
    os.kill(executor_of(task), signal.SIGKILL)
    case.end(driver)
    case.equals(expected)
    assert case.calls(2) == 2
    assert is_gone(task), "the task goes on"


def lost_driver(case, expected):
    """The driver and its JVM are killed while task 5 runs; started again, it runs what is left."""
    case.plan(8)
    driver = case.submit(LOCAL_CLUSTER, outpour=case.wrapped(5, HANG))
    task = case.met()
    wait_for(lambda: len(case.records()) >= 2)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    left = 8 - len(case.records())
    case.log.unlink()
    # The executors end when they miss the driver; until then attempts of both may run.
    case.end(case.submit(LOCAL_CLUSTER))
    assert 0 < left < 8 and re.search("tasks to be run: [1-7] of 8", case.log.read_text())
    case.equals(expected)
    wait_for(lambda: is_gone(task), 30)


def two_drivers(case, expected):
    """Two drivers run the same job at once, so that each task has two attempts."""
    case.plan(21)
    drivers = [case.submit("local[2,4]") for _ in range(2)]
    for driver in drivers:
        case.end(driver)
    case.equals(expected)


def speculation(case, expected):
    """Spark standalone, two workers on two addresses. The first attempt of task 6 hangs; a second one is started beside it."""
    case.plan(8)
    with standalone(case) as master:
        begun = time.monotonic()
        conf = ["spark.speculation=true", "spark.speculation.quantile=0.5", "spark.speculation.interval=500ms"]
        case.end(case.submit(master, *conf, outpour=case.wrapped(6, HANG)))
        case.equals(expected)
        assert re.match(r"s\d+-1-", case.records()[6]["attempt"]), case.records()[6]["attempt"]
        wait_for(lambda: is_gone(case.met()), 30)
        assert time.monotonic() - begun < 200


def shipped(case, expected):
    """Spark standalone, the binary shipped to the workers by `outpour spark --ship`, as its words are."""
    case.plan(8)
    with standalone(case) as master:
        beside = case.scratch / "driver"
        beside.mkdir()
        shutil.copy(DRIVER, beside / "driver.py")
        shutil.copy(case.wrapped(99, ":"), beside / "outpour-shipped")
        words = [SPARK_HOME + "/bin/spark-submit", "--master", master, "--conf", "spark.driver.host=127.0.0.1"]
        words += ["--files", beside / "outpour-shipped", beside / "driver.py", "--job", case.job, "--outpour", "outpour-shipped"]
        case.end(case.start(words))
        case.equals(expected)
        # The workers ran their copy, not the file that was shipped.
        assert case.calls(3) == 1 and str(beside) not in (case.scratch / "calls").read_text()


def zombie(case, expected):
    """An attempt stops in the middle of its work, and goes on after the job was committed."""
    case.plan(3)
    for _ in range(20):
        words = ["run-task", "--store", case.store, "--job", case.job, "--task", 0, "--attempt", "zombie"]
        attempt = case.start([case.outpour, *words])
        wait_for(lambda: glob.glob(str(case.job / "data/*/.*.part")) or attempt.poll() is not None)
        with contextlib.suppress(ProcessLookupError):
            os.kill(attempt.pid, signal.SIGSTOP)
        if not (case.job / "tasks/0.json").exists():
            break
        os.kill(attempt.pid, signal.SIGCONT)
        attempt.wait()
        shutil.rmtree(case.job)
        case.plan(3)
    else:
        raise AssertionError("no attempt could be stopped in time")
    case.end(case.submit("local[2,4]"))
    before = (case.job / "manifest.json").read_bytes()
    os.kill(attempt.pid, signal.SIGCONT)
    assert attempt.wait(PATIENCE) == 0
    assert (case.job / "manifest.json").read_bytes() == before
    case.equals(expected)


def notebook(case, expected):
    """The driver as a module, which the workers do not have; the binary is shipped by it."""
    case.plan(8)
    program = case.scratch / "program.py"
    program.write_text(
        """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("outpour_driver", %r)
driver = importlib.util.module_from_spec(spec)
sys.modules["outpour_driver"] = driver
spec.loader.exec_module(driver)
from pyspark.sql import SparkSession
conf = {"spark.master": %r, "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1"}
spark = SparkSession.builder.config(map=conf).getOrCreate()
print(driver.run(spark, job=%r, outpour=%r, ship_binary=True))
spark.stop()
"""
        % (str(DRIVER), LOCAL_CLUSTER, str(case.job), str(case.outpour))
    )
    case.end(case.start([sys.executable, program]))
    case.equals(expected)


def connect(case, expected):
    """A session of Spark Connect, which has no SparkContext; a failure, and the binary shipped."""
    case.plan(8)
    process = subprocess.Popen(
        list(map(str, [sys.executable, DRIVER, "--job", case.job, "--outpour", case.wrapped(3, "exit 74"), "--ship"])),
        stdin=subprocess.DEVNULL,
        stdout=open(case.log, "ab"),
        stderr=subprocess.STDOUT,
        env={**environment(), "SPARK_REMOTE": LOCAL_CLUSTER},
        start_new_session=True,
    )
    case.end(process)
    case.equals(expected)
    assert case.calls(3) == 2


def interrupted(case, expected):
    """The driver is asked to end while task 5 runs, and started again."""
    case.plan(8)
    driver = case.submit(LOCAL_CLUSTER, outpour=case.wrapped(5, HANG))
    task = case.met()
    python = wait_for(lambda: child_of(driver.pid, b"driver.py"))
    os.kill(python, signal.SIGTERM)
    case.end(driver, 130)
    wait_for(lambda: is_gone(task), 30)
    assert json.loads((case.job / "status.json").read_text())["status"] == "Cancelled"
    case.end(case.submit("local[2,4]"))
    case.equals(expected)


def cost(case, _expected):
    """What Spark costs by itself: a session, the first tasks, and each of 200 tasks that do nothing."""
    program = case.scratch / "program.py"
    program.write_text(
        """
import importlib.util, sys, time
begun = time.monotonic()
spec = importlib.util.spec_from_file_location("outpour_driver", %r)
driver = importlib.util.module_from_spec(spec)
sys.modules["outpour_driver"] = driver
spec.loader.exec_module(driver)
from pyspark.sql import SparkSession
conf = {"spark.master": sys.argv[1], "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1"}
spark = SparkSession.builder.config(map=conf).getOrCreate()
figures = [time.monotonic() - begun]
for count in [2, 200, 200, 200]:
    begun = time.monotonic()
    driver.run_tasks(spark, list(range(count)), job="/", store="/", outpour="/bin/true", beside="/")
    figures.append(time.monotonic() - begun)
spark.stop()
print("session %%.1f s, first 2 tasks %%.1f s, then 200 tasks in %%.1f, %%.1f and %%.1f s" %% tuple(figures))
"""
        % str(DRIVER)
    )
    with standalone(case) as standalone_master:
        for master in ["local[2,4]", LOCAL_CLUSTER, standalone_master]:
            words = [sys.executable, program, master]
            done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=environment())
            print("  %s: %s" % (master, done.stdout.strip() or done.stderr[-2000:]), flush=True)


def child_of(parent, word):
    """A process right below another one with a word in its arguments."""
    for path in glob.glob("/proc/%d/task/*/children" % parent):
        for child in pathlib.Path(path).read_text().split():
            if word in pathlib.Path("/proc/%s/cmdline" % child).read_bytes():
                return int(child)
    return None


@contextlib.contextmanager
def standalone(case):
    """A master and two workers, of one core each, on 127.0.0.2 and 127.0.0.3."""
    java = [SPARK_HOME + "/bin/spark-class"]
    deploy = "org.apache.spark.deploy."
    master = "spark://127.0.0.1:17077"
    words = [java + [deploy + "master.Master", "--host", "127.0.0.1", "--port", "17077", "--webui-port", "0"]]
    for address in ["127.0.0.2", "127.0.0.3"]:
        place = case.scratch / address
        more = ["--host", address, "--cores", "1", "--memory", "1g", "--webui-port", "0", "--work-dir", place, master]
        words.append(java + [deploy + "worker.Worker"] + more)
    daemons = []
    try:
        for command in words:
            address = command[command.index("--host") + 1]
            log = open(case.scratch / ("daemon-" + address), "ab")
            own = {**environment(), "SPARK_LOCAL_IP": address}
            process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=own, start_new_session=True
            )
            daemons.append(process)
            ready = "Successfully registered with master" if daemons[1:] else "I have been elected leader"
            wait_for(lambda: ready in (case.scratch / ("daemon-" + address)).read_text(errors="replace"), 120)
        yield master
    finally:
        for process in daemons:
            os.killpg(process.pid, signal.SIGTERM)
        for process in daemons:
            process.wait(60)


CASES = [
    number_of_tasks,
    failed_once,
    failed_always,
    fatal,
    killed_executor,
    lost_driver,
    interrupted,
    two_drivers,
    zombie,
    notebook,
    speculation,
    shipped,
]


def main():
    outpour, store, scratch = (pathlib.Path(word).resolve() for word in sys.argv[1:4])
    named = {case.__name__: case for case in CASES + [connect, cost]}
    unknown = [word for word in sys.argv[4:] if word not in named]
    if unknown:
        sys.exit("no such case: %s; there are %s" % (", ".join(unknown), ", ".join(named)))
    chosen = [named[word] for word in sys.argv[4:]] or CASES
    scratch.mkdir(exist_ok=True)
    out = scratch / "export"
    words = [outpour, "export", "--store", store, "--out", out, *REQUEST, "--force"]
    begun = time.monotonic()
    assert subprocess.run(list(map(str, words)), stdout=subprocess.DEVNULL).returncode in (0, 1)
    expected = published(out)
    seconds = time.monotonic() - begun
    counts = ", ".join("%d of %s" % (sum(file[0] == name for file in expected[0]), name) for name in ["output", "deleted", "error"])
    print("PySpark %s; one machine's export: files: %s; %.1f s" % (pyspark.__version__, counts, seconds), flush=True)
    failures = 0
    for case in chosen:
        begun = time.monotonic()
        try:
            case(Case(case.__name__, outpour, store, scratch), expected)
            outcome = "ok"
        except Exception as error:
            outcome = "FAILED: %s: %s" % (type(error).__name__, error)
            failures += 1
        print("%-16s %6.1f s  %s" % (case.__name__, time.monotonic() - begun, outcome), flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
