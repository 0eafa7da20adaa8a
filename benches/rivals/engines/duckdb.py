"""DuckDB through its Python package: a COPY for each type. Lines must leave as they came, so they are read as text or
as whole JSON values, and the two elements that decide are taken from them.
"""

TITLE = "DuckDB"
PACKAGES = ["duckdb"]
REQUIRED = True
LOADS = True
VALIDATES = "JSON and more (NaN, trailing commas), UTF-8"
FORMULATIONS = {
    "transform": "lines by `read_csv` of one text column, then `json_transform` with an explicit structure",
    "extract": "lines by `read_csv` of one text column, then one `json_extract_string` of both paths",
    "objects": "`read_ndjson_objects`, then `json_transform` with an explicit structure",
}
LINE_BYTES_MAX = 64 << 20
# A byte that JSON text cannot hold, so that no line is cut into columns.
SEPARATOR = "\x1f"
WRITE = f"(FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '{SEPARATOR}')"


def _rows(path, element, formulation):
    """A SELECT of line, patient (text) and updated (TIMESTAMPTZ)."""
    if formulation == "objects":
        source = f"(SELECT json AS line FROM read_ndjson_objects('{path}', maximum_object_size={LINE_BYTES_MAX}))"
    else:
        source = (f"read_csv('{path}', columns={{'line': 'VARCHAR'}}, header=false, delim='{SEPARATOR}', quote='', "
                  f"escape='', auto_detect=false, strict_mode=false, max_line_size={LINE_BYTES_MAX})")
    if formulation == "extract":
        patient = f"$.{element}.reference" if element else "$.id"
        return (f"SELECT line, x[1] AS patient, x[2]::TIMESTAMPTZ AS updated FROM (SELECT line, "
                f"json_extract_string(line, ['{patient}', '$.meta.lastUpdated']) AS x FROM {source})")
    patient = f'"{element}":{{"reference":"VARCHAR"}}' if element else '"id":"VARCHAR"'
    taken = f"x.{element}.reference" if element else "x.id"
    return (f"SELECT line, {taken} AS patient, x.meta.lastUpdated AS updated FROM (SELECT line, "
            f"json_transform(line, '{{{patient},\"meta\":{{\"lastUpdated\":\"TIMESTAMPTZ\"}}}}') AS x FROM {source})")


def _open(task, database=":memory:"):
    import duckdb
    db = duckdb.connect(database)
    # Order is nobody's requirement here, and keeping it costs.
    db.execute(f"SET threads={task.threads}; SET preserve_insertion_order=false; SET TimeZone='UTC'")
    return db


def _members(db, task):
    db.execute("CREATE TEMP TABLE member (reference VARCHAR, id VARCHAR)")
    path = f"{task.scratch}/members.csv"
    with open(path, "w") as file:
        file.writelines(f"{reference},{reference.removeprefix('Patient/')}\n" for reference in task.members)
    db.execute(f"INSERT INTO member SELECT * FROM read_csv('{path}', header=false, "
               "columns={'reference': 'VARCHAR', 'id': 'VARCHAR'})")


def _where(element, since):
    where = f"patient IN (SELECT {'reference' if element else 'id'} FROM member)"
    return where + (f" AND updated > TIMESTAMPTZ '{since}'" if since else "")


def run(task):
    from jobs import PATIENT_ELEMENT
    if task.formulation in ("load", "loaded"):
        return _table(task)
    db = _open(task)
    _members(db, task)
    for kind, path in task.files:
        element = PATIENT_ELEMENT[kind]
        rows = _rows(path, element, task.formulation)
        db.execute(f"COPY (SELECT line FROM ({rows}) WHERE {_where(element, task.since)}) "
                   f"TO '{task.target(kind)}' {WRITE}")


def _table(task):
    """`load`: parse once into tables, ordered by patient as DuckDB's zone maps like it; `loaded`: ask those tables."""
    from jobs import PATIENT_ELEMENT
    db = _open(task, task.database)
    if task.formulation == "load":
        for kind, path in task.files:
            rows = _rows(path, PATIENT_ELEMENT[kind], "transform")
            db.execute(f'CREATE OR REPLACE TABLE "{kind}" AS {rows} ORDER BY patient')
        db.close()
        return
    _members(db, task)
    for kind, _ in task.files:
        where = _where(PATIENT_ELEMENT[kind], task.since)
        db.execute(f"COPY (SELECT line FROM \"{kind}\" WHERE {where}) TO '{task.target(kind)}' {WRITE}")
