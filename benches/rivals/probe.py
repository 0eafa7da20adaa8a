"""Who checks what: a store of three lines, the middle one damaged behind everything that decides, put to each engine.

`taken`: the damaged line is exported. `passed by`: the other two are. `ends`: the engine ends with an error.
"""


import jobs
import measure
import rows as running
import store as stores

HEAD = '{"resourceType":"Observation","id":"%d","meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"subject":{"reference":"Patient/p"},"x":'
#: What follows the head, up to the line's end.
DAMAGE = {
    "nothing wrong": b'1}', "trailing comma": b'[1,]}', "NaN": b'NaN}', "leading zero": b'01}', "unknown literal": b'nul}',
    "control character in a string": b'"a\x01"}', "bad UTF-8": b'"\xff"}', "unknown escape": b'"\\q"}',
    "missing brace": b'1', "missing bracket": b'[1}', "missing colon": b'{"a" 1}}', "missing comma": b'[1 2]}',
    "something behind the value": b'1} x', "brackets crossed": b'[}]}', "comment": b'1/*a*/}',
    "lone surrogate (legal)": b'"\\ud800"}', "1e999 (legal)": b'1e999}', "depth 2,000 (legal)": b'[' * 2000 + b']' * 2000 + b'}',
}


def _verdict(kit, step, out):
    sample = measure.run(step, kit.log, sample=False)
    lines = sum(count for count, _, _ in running.content(out).values())
    if sample.code not in (0, 1) or sample.code == 1 and step[0] != kit.outpour.binary:
        return "ends"
    return {3: "taken", 2: "passed by"}.get(lines, f"{lines} lines")


def table(kit):
    """A Markdown table, a row for each damage. The rivals' first formulation stands for them."""
    import importlib
    store, out = f"{kit.work}/probe", f"{kit.work}/out/probe"
    job = jobs.Job("probe", "", stores.write_group(f"{kit.work}/probe.json", ["p"]))
    path = f"{store}/Observation.ndjson"
    kit.store = stores.Store(store, [("Observation", path)], 0, 3, ["p"])
    engines = ["outpour", *(importlib.import_module(f"engines.{name}").TITLE for name in kit.rivals)]
    lines = [f"| damage | {' | '.join(engines)} |", "|---|" + "---|" * len(engines)]
    for damage, rest in DAMAGE.items():
        running.empty(store)
        with open(path, "wb") as file:
            for number, end in enumerate((b"1}", rest, b"2}")):
                file.write((HEAD % number).encode() + end + b"\n")
        running.empty(out)
        verdicts = [_verdict(kit, kit.outpour.export(store, f"{store}/.outpour", out, job, 1), out)]
        for name in kit.rivals:
            formulation = next(iter(importlib.import_module(f"engines.{name}").FORMULATIONS))
            step, answer = kit.task(name, formulation, job, 1)
            running.empty(answer)
            verdicts.append(_verdict(kit, step, answer))
        lines.append(f"| {damage} | {' | '.join(verdicts)} |")
    return "\n".join(lines)
