"""Python with orjson: the loop of `engines.python` over a parser that checks every byte."""

from engines import python
from engines.python import FORMULATIONS

TITLE = "Python + orjson"
PACKAGES = ["orjson"]
REQUIRED = True
VALIDATES = "RFC 8259 and UTF-8"


def run(task):
    import orjson
    python.pour(task, orjson.loads)
