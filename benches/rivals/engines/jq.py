"""jq over raw lines: `fromjson` parses a line, the line itself is printed. One thread, and slow, so it runs the job of
10 % only, once.
"""

TITLE = "jq"
PACKAGES = []
COMMAND = "jq"
REQUIRED = False
SLOW = True
VALIDATES = "JSON and more (NaN); bad UTF-8 is replaced"
FORMULATIONS = {"raw": "`jq -R -r`: each line through `fromjson`, members in an object"}
PROGRAM = """
def seconds: capture("^(?<second>.{19})([.](?<fraction>[0-9]+))?(?<zone>Z|[+-][0-9:]{5})$")
  | ((.second + "Z") | fromdateiso8601) + (if .fraction then ("0." + .fraction | tonumber) else 0 end)
  - (if .zone == "Z" then 0 else (if .zone[0:1] == "-" then -1 else 1 end)
     * ((.zone[1:3] | tonumber) * 3600 + (.zone[4:6] | tonumber) * 60) end);
. as $line | fromjson | select($member[0][PATIENT] != null) | select($since == null or (.meta.lastUpdated | seconds) > $since) | $line
"""


def run(task, command="jq"):
    import json
    import subprocess
    from datetime import datetime
    from jobs import PATIENT_ELEMENT
    members = f"{task.scratch}/members.json"
    with open(members, "w") as file:
        json.dump({reference: 1 for reference in task.members}, file)
    since = str(int(datetime.fromisoformat(task.since).timestamp())) if task.since else "null"
    for kind, path in task.files:
        element = PATIENT_ELEMENT[kind]
        patient = f'(.{element}.reference // "")' if element else '("Patient/" + .id)'
        argv = [command, "-R", "-r", "--slurpfile", "member", members, "--argjson", "since", since,
                PROGRAM.replace("PATIENT", patient).strip(), path]
        with open(task.target(kind), "wb") as out:
            subprocess.run(argv, stdout=out, check=True)
