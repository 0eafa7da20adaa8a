"""jaq: jq's program in another implementation."""

from engines import jq
from engines.jq import FORMULATIONS

TITLE = "jaq"
PACKAGES = []
COMMAND = "jaq"
REQUIRED = False
SLOW = True
VALIDATES = "JSON"


def run(task):
    jq.run(task, "jaq")
