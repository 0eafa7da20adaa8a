"""Python with its own `json`: needs nothing, so that the kit can be tested anywhere. Slow; run only when named."""

from engines import python
from engines.python import FORMULATIONS

TITLE = "Python + json"
PACKAGES = []
REQUIRED = False
VALIDATES = "JSON and more (NaN), UTF-8"


def run(task):
    import json
    python.pour(task, json.loads)
