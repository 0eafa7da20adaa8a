"""The driver of Spark beside a pyspark and a binary that are made up here: which exit codes are tried again, what is said,
what the status has. Needs python3 and sh: `python3 driver_test.py`. `cluster.py` has the tests with Spark."""

import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import types
import unittest

sys.dont_write_bytecode = True
MAX_FAILURES = 4


class Session:
    """A session that calls a UDF for each row, and again when it raises, as Spark does."""

    description = None

    class Row(Exception):
        pass

    @property
    def sparkContext(self):
        return types.SimpleNamespace(setLocalProperty=lambda *_: None, addFile=self.shipped.append)

    def __init__(self):
        self.shipped = []

    def range(self, first, last, step, partitions):
        assert partitions == last - first and step == 1, "one task a partition"
        self.places = range(first, last)
        return self

    def select(self, call):
        self.call = call
        return self

    def collect(self):
        return [[self.retried(place)] for place in self.places]

    def retried(self, place):
        for attempt in range(MAX_FAILURES):
            Context.attempt = attempt
            try:
                return self.call(place)
            except RuntimeError as error:
                last = error
        raise Exception("Job aborted\nTraceback\nRuntimeError: %s\n at org.apache.spark" % last)


class Context:
    """The context of a Spark task."""

    attempt = 0
    get = classmethod(lambda context: context())
    stageId = attemptNumber = taskAttemptId = lambda _: Context.attempt
    cpus = lambda _: 2


class Udf:
    """A UDF, which is called with a column and gives one."""

    def __init__(self, function):
        self.function = function

    def asNondeterministic(self):
        return self

    def __call__(self, _column):
        return self.function


def module(name, **names):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(names)
    return sys.modules[name]


def no_files(_name):
    raise AssertionError("there is no context")


module("pyspark.sql.functions", col=str, udf=Udf)
SQL = module("pyspark.sql", SparkSession=None)
PICKLE = types.SimpleNamespace(register_pickle_by_value=lambda _: None)
module("pyspark", TaskContext=Context, SparkFiles=types.SimpleNamespace(get=no_files), sql=SQL, cloudpickle=PICKLE)
PATH = pathlib.Path(__file__).resolve().parents[2] / "src/spark/driver.py"
SPEC = importlib.util.spec_from_file_location("driver", PATH)
driver = importlib.util.module_from_spec(SPEC)
sys.modules["driver"] = driver
SPEC.loader.exec_module(driver)

# Ends with the codes in the file `codes/<task>`, one an attempt, and with 0 when those are used up; notes each start.
BINARY = """#!/bin/sh
cd "$(dirname "$0")"
command=$1 job= task= words="$*"
while [ $# -gt 0 ]; do
  case $1 in --job) job=$2 ;; --task) task=$2 ;; esac
  shift
done
echo "$words" >> calls
name=${task:-$command}
echo "outpour: error: about $name" >&2
code=$(sed -n 1p "codes/$name" 2>/dev/null)
[ -z "$code" ] || sed -i 1d "codes/$name"
case $code in
  k) kill -9 $$ ;;
  '' | 0) [ -z "$task" ] || : > "$job/tasks/$task.json"; exit 0 ;;
  *) exit "$code" ;;
esac
"""


class Driver(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.home = pathlib.Path(scratch.name)
        self.job = self.home / "job"
        for name in ["job/tasks", "codes"]:
            (self.home / name).mkdir(parents=True)
        plan = {"store": "/store", "planId": "p", "transactionTime": "2026-01-01T00:00:00.000Z", "tasks": [[[i]] for i in range(5)]}
        (self.job / "plan.json").write_text(json.dumps(plan))
        self.binary = self.home / "outpour"
        self.binary.write_text(BINARY)
        self.binary.chmod(0o700)
        driver.RECORDS_SECONDS = 0
        self.session = Session()

    def run_driver(self, **words):
        return driver.run(self.session, self.job, outpour=str(self.binary), **words)

    def codes(self, **of):
        for name, codes in of.items():
            (self.home / "codes" / name.strip("_")).write_text("".join("%s\n" % code for code in codes))

    def calls(self, task):
        lines = (self.home / "calls").read_text().splitlines()
        return sum(1 for line in lines if ("--task %d " % task) in line)

    def status(self):
        return json.loads((self.job / "status.json").read_text())

    def fails(self, code, *words):
        with self.assertRaises(driver.ExportFailure) as raised:
            self.run_driver()
        text = str(raised.exception)
        self.assertEqual(raised.exception.code, code, text)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual((self.status()["status"], self.status()["reason"]), ("Failed", text))
        return text

    def test_a_task_that_may_succeed_is_tried_again(self):
        self.codes(_0=[74], _1=[130, 75], _2=["k", 101, 1])
        (self.job / "tasks/4.json").touch()
        self.assertEqual(self.run_driver(), str(self.job / "manifest.json"))
        self.assertEqual([self.calls(task) for task in range(5)], [2, 3, 4, 1, 0], "a record is not made again")
        status = self.status()
        self.assertEqual((status["status"], status["tasks"], status["percent"]), ("Successful", {"complete": 5, "total": 5}, 100))
        self.assertEqual((self.job / "status.json").stat().st_mode & 0o777, 0o600)
        self.assertEqual([name for name in os.listdir(self.job) if name.startswith(".")], [])
        call = (self.home / "calls").read_text().splitlines()[0]
        self.assertEqual(
            call,
            "run-task --quiet --progress never --store /store --job %s --task 0 --attempt s0-0-0 --threads 2" % self.job,
        )

    def test_a_task_that_cannot_succeed_is_not(self):
        for code in driver.FATAL:
            with self.subTest(code=code):
                self.codes(_3=[code])
                before = self.calls(3) if (self.home / "calls").exists() else 0
                text = self.fails(code, "task 3 ended with %d" % code, "about 3")
                self.assertEqual(self.calls(3), before + 1)
                self.assertFalse("commit" in (self.home / "calls").read_text(), text)

    def test_what_is_missing_in_the_end_is_told(self):
        self.codes(_2=[74] * 4, commit=[75])
        text = self.fails(75, "Spark gave up: outpour: task 2 ended with 74: outpour: error: about 2", "about commit")
        self.assertNotIn("org.apache", text)
        self.assertEqual(self.status()["tasks"], {"complete": 2, "total": 5})
        # Started again, it goes on.
        self.run_driver()
        self.assertEqual([self.calls(task) for task in range(5)], [1, 1, 5, 1, 1])

    def test_records_that_are_seen_late_are_waited_for(self):
        self.codes(commit=[75])
        driver.RECORDS_SECONDS = 0.2
        self.run_driver()
        self.codes(commit=[64])
        self.fails(64, "about commit")
        self.codes(commit=[99])
        self.fails(74, "about commit")

    def test_the_binary_is_found(self):
        found = driver.find_binary
        self.assertEqual(found("outpour", str(self.home)), str(self.binary), "beside the driver")
        self.assertEqual(found(str(self.binary), "/"), str(self.binary))
        self.assertIsNone(found(str(self.job), "/"), "a directory")
        self.assertEqual(found("sh", "/nowhere"), driver.shutil.which("sh"))
        files, sys.modules["pyspark"].SparkFiles = sys.modules["pyspark"].SparkFiles, None
        try:
            shipped = self.home / "shipped"
            shipped.write_text("")
            shipped.chmod(0o700)
            sys.modules["pyspark"].SparkFiles = types.SimpleNamespace(get=lambda _: str(shipped))
            self.assertEqual(found("outpour", str(self.home)), str(shipped), "what is shipped goes first")
        finally:
            sys.modules["pyspark"].SparkFiles = files
        self.run_driver(ship_binary=False)
        self.assertEqual(self.session.shipped, [])
        with self.assertRaises(driver.ExportFailure) as raised:
            driver.run(self.session, self.job, outpour="/nowhere/outpour")
        self.assertEqual(raised.exception.code, 64)

    def test_what_is_no_plan_is_refused(self):
        for text in ["", "{", "[]", "{}", '{"store": 1}', '{"store":"","planId":"","transactionTime":"","tasks":[]}', "\xff"]:
            (self.job / "plan.json").write_text(text, encoding="latin-1")
            with self.assertRaises(driver.ExportFailure) as raised:
                self.run_driver()
            self.assertEqual(raised.exception.code, 64, text)
        self.assertEqual(driver.main(["--job", str(self.home)]), 64)
        with self.assertRaises(SystemExit) as ended:
            driver.main([])
        self.assertEqual(ended.exception.code, 64)


if __name__ == "__main__":
    unittest.main()
