"""ClickHouse inside a process (chdb): an INSERT INTO FUNCTION file for each type. Lines are read as text; simdjson
parses each one whole when an element is taken from it.
"""

TITLE = "ClickHouse (chdb)"
PACKAGES = ["chdb"]
REQUIRED = True
LOADS = True
VALIDATES = "RFC 8259 and UTF-8; a bad line is passed by without a word"
FORMULATIONS = {
    "extract": "`LineAsString`, then `JSONExtractString` of the patient and, where that matches, of lastUpdated",
    "tuple": "`LineAsString`, then one `JSONExtract` into an explicit `Tuple`",
    "objects": "`JSONAsString`, then one `JSONExtract` into an explicit `Tuple`",
}


def _rows(path, element, formulation):
    """A SELECT of line, patient and updated (text)."""
    form = "JSONAsString" if formulation == "objects" else "LineAsString"
    source = f"file('{path}', '{form}', 'line String')"
    if formulation == "extract":
        keys = f"'{element}', 'reference'" if element else "'id'"
        return (f"SELECT line, JSONExtractString(line, {keys}) AS patient, "
                f"JSONExtractString(line, 'meta', 'lastUpdated') AS updated FROM {source}")
    shape = f"{element} Tuple(reference String)" if element else "id String"
    taken = f"t.{element}.reference" if element else "t.id"
    return (f"SELECT line, {taken} AS patient, t.meta.lastUpdated AS updated FROM (SELECT line, "
            f"JSONExtract(line, 'Tuple({shape}, meta Tuple(lastUpdated String))') AS t FROM {source})")


def _instant(text):
    return f"parseDateTime64BestEffortOrNull({text}, 9, 'UTC')"


def run(task):
    from jobs import PATIENT_ELEMENT
    from chdb import session
    stored = task.formulation in ("load", "loaded")
    db = session.Session(task.database) if stored else session.Session()
    path = f"{task.scratch}/members.csv"
    with open(path, "w") as file:
        file.writelines(f"{reference},{reference.removeprefix('Patient/')}\n" for reference in task.members)
    db.query("DROP DATABASE IF EXISTS kit")
    db.query("CREATE DATABASE kit ENGINE=Memory")
    db.query("CREATE TABLE kit.member (reference String, id String) ENGINE=Memory")
    db.query(f"INSERT INTO kit.member SELECT * FROM file('{path}', 'CSV', 'reference String, id String')")
    # One thread means one: parsing ahead in other threads only adds to the CPU time.
    ahead = int(task.threads > 1)
    settings = (f"SETTINGS max_threads={task.threads}, max_insert_threads={task.threads}, "
                f"input_format_parallel_parsing={ahead}, output_format_parallel_formatting={ahead}")
    if task.formulation == "load":
        # Parse once into tables that are ordered by patient, compressed as ClickHouse does by default.
        db.query("CREATE DATABASE IF NOT EXISTS loaded")
        for kind, path in task.files:
            db.query(f"CREATE TABLE loaded.{kind} (line String, patient String, updated DateTime64(9, 'UTC')) "
                     "ENGINE=MergeTree ORDER BY patient")
            rows = _rows(path, PATIENT_ELEMENT[kind], "extract")
            db.query(f"INSERT INTO loaded.{kind} SELECT line, patient, {_instant('updated')} FROM ({rows}) {settings}")
        return
    for kind, path in task.files:
        element = PATIENT_ELEMENT[kind]
        rows = f"loaded.{kind}" if stored else f"({_rows(path, element, task.formulation)})"
        where = f"patient IN (SELECT {'reference' if element else 'id'} FROM kit.member)"
        if task.since:
            instant = "updated" if stored else _instant("updated")
            where += f" AND {instant} > parseDateTime64BestEffort('{task.since}', 9, 'UTC')"
        db.query(f"INSERT INTO FUNCTION file('{task.target(kind)}', 'TSVRaw', 'line String') "
                 f"SELECT line FROM {rows} WHERE {where} {settings}")
