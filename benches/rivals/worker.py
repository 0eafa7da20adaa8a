"""A rival's process: `worker.py TASK.json`. The task names engine, formulation, files, Group, since, threads and the
directory for the answer; everything from here to the process's end is measured, the start of Python included.
"""

import importlib
import json
import sys

from jobs import PATIENT_ELEMENT, member_references


class Task:
    def __init__(self, path):
        with open(path) as file:
            words = json.load(file)
        self.engine, self.formulation = words["engine"], words["formulation"]
        self.since, self.threads, self.out = words["since"], words["threads"], words["out"]
        self.scratch, self.database = words["scratch"], words["database"]
        self.files = [(kind, path) for kind, path in words["files"] if kind in PATIENT_ELEMENT]
        self.members = member_references(words["group"])

    def target(self, kind):
        return f"{self.out}/{kind}.ndjson"


if __name__ == "__main__":
    task = Task(sys.argv[1])
    importlib.import_module(f"engines.{task.engine}").run(task)
