#!/usr/bin/env python3
"""Runs the tasks of a planned outpour export on Apache Spark, then commits the export.

`outpour plan --job JOB ...` has made the job. Then, one of:

    spark-submit driver.py --job JOB                 also as `outpour spark --job JOB -- WORDS FOR SPARK-SUBMIT`
    python driver.py --job JOB                       the session is what pyspark finds (SPARK_REMOTE, PYSPARK_SUBMIT_ARGS)
    import driver; driver.run(spark, job="JOB")      in a notebook

Store and job lie on a file system that driver and workers see under the same path. A Spark task runs one task of the plan,
as a process of `outpour run-task`. What it returns is not trusted: `outpour commit` reads the records of the tasks, and
only then the export has a manifest. So a driver that was lost is started again with the same words; tasks that have a
record are not run again. PySpark 3.5 or 4, classic or Connect; nothing beside the standard library and pyspark.

Exit codes: 0 the export is committed. Not to be retried: 64 wrong arguments, a job that is not planned, a binary that is
not found, or what `run-task` and `commit` refuse; 65 the store has changed; 70 two attempts differ; 77 not permitted. To be
retried with the same words: 74 reading or writing failed; 75 Spark gave up, and tasks are missing; 130 interrupted.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid

# Exit codes of `run-task` that another attempt would have, too. Any other one but 0 is raised, so that Spark tries again.
FATAL = (64, 65, 70, 77)
# Bytes that are kept of what a task says on standard error: its end.
TAIL_BYTES = 2000
# Tasks that a message names; it counts the others.
NAMED_MAX = 5
# Seconds between two updates of the status, and between two lines of progress.
STATUS_SECONDS = 1.0
PROGRESS_SECONDS = 10.0
# Clients of NFS may hold a listing of a directory for 60 s (nfs(5), acdirmax): so long a record may not be seen yet.
RECORDS_SECONDS = 70.0


class ExportFailure(Exception):
    """An export that was not committed; `code` is the exit code of the program."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def find_binary(outpour, beside):
    """Path of the binary on this machine, or None. `outpour` with a `/` is its path, else its name: of a file that was
    shipped (`--files`, `addFile`), in the directory `beside`, or in PATH."""
    if os.sep in outpour:
        places = [outpour]
    else:
        try:
            from pyspark import SparkFiles

            shipped = SparkFiles.get(outpour)
        except Exception:  # The client of a Connect session has no files of Spark.
            shipped = None
        places = [shipped, os.path.join(beside, outpour), shutil.which(outpour)]
    return next((place for place in places if place and os.path.isfile(place) and os.access(place, os.X_OK)), None)


def run_task(task, job, store, outpour, beside):
    """Runs an attempt of a task, on a worker. Returns, as JSON, the number of the task, its exit code, and what it said if
    that code is one of FATAL. Raises on other codes."""
    from pyspark import TaskContext

    binary = find_binary(outpour, beside)
    if binary is None:
        raise RuntimeError("outpour: task %d: there is no executable %s on this worker; ship it" % (task, outpour))
    context = TaskContext.get()
    attempt, threads = "spark", 1
    if context is not None:
        # The attempt's name tells people which Spark task it was; the binary adds what makes it unique.
        attempt = "s%d-%d-%d" % (context.stageId(), context.attemptNumber(), context.taskAttemptId())
        threads = context.cpus() or 1
    words = ["--store", store, "--job", job, "--task", str(task), "--attempt", attempt, "--threads", str(threads)]
    try:
        # The binary ends with the thread that starts it, so it is started by the one that Spark ends.
        process = subprocess.Popen(
            [binary, "run-task", "--quiet", "--progress", "never"] + words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise RuntimeError("outpour: task %d: %s cannot be started: %s" % (task, binary, error.strerror))
    tail = b""
    with process:
        for piece in iter(lambda: process.stderr.read1(65536), b""):
            tail = (tail + piece)[-TAIL_BYTES:]
    code = process.returncode
    said = "; ".join(tail.decode("utf-8", "replace").split("\n")).strip("; ")
    if code == 0 or code in FATAL:
        return json.dumps([task, code, said if code else ""])
    how = "ended with %d" % code if code > 0 else "was ended by signal %d" % -code
    raise RuntimeError("outpour: task %d %s: %s" % (task, how, said))


def run_tasks(spark, tasks, **job):
    """Runs tasks on Spark, each in a partition of its own; those that ended with a code of FATAL, as (task, code, text).
    Raises what Spark raises when it gives up."""
    from pyspark import cloudpickle
    from pyspark.sql.functions import col, udf

    # Workers do not have this file: its functions travel by value, also where a notebook has imported it.
    if __name__ != "__main__":
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
    run_one = udf(lambda place: run_task(tasks[place], **job)).asNondeterministic()
    count = len(tasks)
    rows = spark.range(0, count, 1, count).select(run_one(col("id"))).collect()
    ended = [json.loads(row[0]) for row in rows]
    return [(task, code, text) for task, code, text in ended if code != 0]


class JobStatus:
    """`status.json` in the root of the job, replaced each second by a thread; and lines of progress on standard error."""

    def __init__(self, job, plan):
        self.job = job
        self.document = {"id": plan["planId"], "transactionTime": plan["transactionTime"], "status": "In Progress"}
        self.document.update(phase="starting", tasks={"complete": 0, "total": len(plan["tasks"])}, percent=0)
        self.document.update(pid=os.getpid(), started=now())
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.write()
        self.thread.start()
        return self

    def __exit__(self, kind, error, _):
        self.ended.set()
        self.thread.join()
        self.document["status"] = "Successful" if kind is None else "Failed"
        if kind is None:
            self.document.pop("phase")
        elif issubclass(kind, KeyboardInterrupt):
            self.document.update(status="Cancelled", reason="it was interrupted")
        else:
            # Of other errors than ours nobody knows what their text holds.
            self.document["reason"] = str(error) if kind is ExportFailure else kind.__name__
        self.write()

    def watch(self):
        """Updates the document until the end."""
        told, told_at = None, time.monotonic()
        while not self.ended.wait(STATUS_SECONDS):
            tasks = self.write()["tasks"]
            if tasks != told and time.monotonic() - told_at >= PROGRESS_SECONDS:
                told, told_at = tasks, time.monotonic()
                say("tasks that have ended: %d of %d" % (tasks["complete"], tasks["total"]))

    def write(self):
        """Replaces the document; returns it. The export does not depend on it, so errors of the system are passed over."""
        total = self.document["tasks"]["total"]
        try:
            names = os.listdir(os.path.join(self.job, "tasks"))
        except OSError:
            names = []
        complete = min(sum(1 for name in names if re.fullmatch(r"[0-9]+\.json", name)), total)
        self.document.update(tasks={"complete": complete, "total": total}, percent=100 * complete // total)
        self.document["heartbeat"] = now()
        own = os.path.join(self.job, ".status.json.%s" % uuid.uuid4().hex)
        try:
            # As everything of a job, for its owner alone.
            with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(json.dumps(self.document, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.rename(own, os.path.join(self.job, "status.json"))
        except OSError:
            if os.path.exists(own):
                os.unlink(own)
        return self.document


def now():
    """The time, as a FHIR instant."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def say(text):
    """Tells people something, as the binary does."""
    print("outpour: " + text, file=sys.stderr, flush=True)


def read_plan(job):
    """The plan of a job, as far as it is needed here: the binary checks it."""
    path = os.path.join(job, "plan.json")
    try:
        with open(path, encoding="utf-8") as file:
            plan = json.load(file)
        names = [plan["store"], plan["planId"], plan["transactionTime"]]
        if not all(isinstance(name, str) for name in names) or not (isinstance(plan["tasks"], list) and plan["tasks"]):
            raise ValueError
        return plan
    except OSError as error:
        raise ExportFailure(64, "%s: %s; plan first, or give the root of a job" % (path, error.strerror))
    except (ValueError, KeyError, TypeError):
        raise ExportFailure(64, "%s is no plan of a job; plan anew in another directory" % path)


def ship(spark, binary):
    """Has Spark copy the binary to its workers."""
    try:
        context = spark.sparkContext
    except Exception:  # A Connect session has no SparkContext, and says so in different ways.
        spark.addArtifacts(binary, file=True)
    else:
        context.addFile(binary)


def describe(spark, text):
    """Names the jobs that this thread starts from now on in the UI of Spark, where there is a SparkContext."""
    try:
        spark.sparkContext.setLocalProperty("spark.job.description", text)
    except Exception:  # As in `ship`; a name is not worth a failure.
        pass


def reasons(error):
    """What tasks said in the error of Spark, whose text is otherwise long and of Spark's insides."""
    found = dict.fromkeys(re.findall(r"outpour: task \d+[^\n]*", str(error)))
    return list(found)[:NAMED_MAX] or ["%s: %s" % (type(error).__name__, str(error).strip().split("\n")[0])]


def commit(binary, job, patience):
    """Commits the job; prints what the binary says. While tasks seem to be missing, tries again for `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        done = subprocess.run([binary, "commit", "--job", job], stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode != 75 or time.monotonic() >= deadline:
            break
        time.sleep(min(5.0, max(0.0, deadline - time.monotonic())))
    if done.returncode == 0:
        print(done.stdout.decode("utf-8", "replace"), end="", flush=True)
        return
    said = done.stderr.decode("utf-8", "replace").replace("outpour: error: ", "").strip()
    code = done.returncode if done.returncode in FATAL + (74, 75) else 74
    raise ExportFailure(code, said or "the commit ended with %d" % done.returncode)


def run(spark, job, store=None, outpour="outpour", ship_binary=False):
    """Runs what is left of a planned job on a Spark session, and commits it; the path of the manifest.

    `job`: root of the job. `store`: the store, if it has another path here than the plan names. `outpour`: path of the
    binary, or its name (`find_binary`). `ship_binary`: whether Spark is to copy it to the workers.

    Raises ExportFailure, whose `code` is an exit code of the program."""
    job = os.path.abspath(job)
    plan = read_plan(job)
    total = len(plan["tasks"])
    # Some notebooks run files without telling their path.
    beside = os.path.dirname(os.path.abspath(globals().get("__file__", "driver.py")))
    binary = find_binary(outpour, beside)
    if binary is None:
        raise ExportFailure(64, "there is no executable %s where the driver runs; give its path" % outpour)
    if os.sep in outpour:
        outpour = os.path.abspath(outpour)
    with JobStatus(job, plan) as status:
        if ship_binary:
            ship(spark, binary)
            outpour = os.path.basename(binary)
        tasks = [task for task in range(total) if not os.path.exists(os.path.join(job, "tasks", "%d.json" % task))]
        say("tasks to be run: %d of %d" % (len(tasks), total))
        status.document["phase"] = "running tasks"
        describe(spark, "outpour export: %d of %d tasks" % (len(tasks), total))
        fatal, gave_up = [], []
        try:
            if tasks:
                store = os.path.abspath(store) if store else plan["store"]
                fatal = run_tasks(spark, tasks, job=job, store=store, outpour=outpour, beside=beside)
        except Exception as error:
            gave_up = reasons(error)
        finally:
            describe(spark, None)
        if fatal:
            lines = ["task %d ended with %d: %s" % ended for ended in fatal[:NAMED_MAX]]
            more = ["%d tasks more ended so" % (len(fatal) - NAMED_MAX)] if len(fatal) > NAMED_MAX else []
            raise ExportFailure(fatal[0][1], "\n".join(lines + more))
        if not gave_up:
            status.document["phase"] = "committing"
        try:
            commit(binary, job, 0 if gave_up else RECORDS_SECONDS)
        except ExportFailure as failure:
            if failure.code != 75:
                raise
            lines = ["Spark gave up: " + reason for reason in gave_up]
            lines += [str(failure), "start the driver again with the same words: tasks that have ended are not run again"]
            raise ExportFailure(75, "\n".join(lines))
        if gave_up:
            say("every task has its record, although Spark gave up: " + gave_up[0])
    return os.path.join(job, "manifest.json")


class ArgumentParser(argparse.ArgumentParser):
    """Arguments whose errors have the exit code of wrong arguments in sysexits.h, as those of `run-task`."""

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(64, "outpour: error: %s\n" % message)


def main(words=None):
    """Runs the program; its exit code."""
    parser = ArgumentParser(description="Runs the tasks of a planned outpour export on Apache Spark, then commits it.")
    parser.add_argument("--job", required=True, help="root of the job, as `outpour plan` made it")
    parser.add_argument("--store", help="the store [default: as the plan names it]")
    parser.add_argument("--outpour", default="outpour", help="path of the binary, or its name [default: outpour]")
    parser.add_argument("--ship", action="store_true", help="have Spark copy the binary to the workers")
    given = parser.parse_args(words)
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        parser.error("pyspark is not installed for %s; start this file by spark-submit" % sys.executable)

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    spark = None
    try:
        # A job that is not planned is told before a cluster is asked for anything.
        read_plan(given.job)
        spark = SparkSession.builder.appName("outpour export").getOrCreate()
        run(spark, given.job, given.store, given.outpour, given.ship)
        return 0
    except ExportFailure as failure:
        for line in str(failure).split("\n"):
            say("error: " + line)
        return failure.code
    except KeyboardInterrupt:
        say("error: interrupted; start the driver again to go on")
        return 130
    finally:
        if spark is not None:
            try:
                spark.stop()
            except Exception:  # The session may have ended before; what counts is on the disk.
                pass


if __name__ == "__main__":
    sys.exit(main())
