"""Polars: lines as one text column of a lazy CSV scan, streamed through to a CSV sink."""

TITLE = "Polars"
PACKAGES = ["polars"]
REQUIRED = False
VALIDATES = "JSON, UTF-8"
FORMULATIONS = {
    "decode": "`scan_csv` of one text column, then `str.json_decode` into an explicit `Struct`",
    "path": "`scan_csv` of one text column, then `str.json_path_match` of the patient and lastUpdated",
}
SEPARATOR = "\x1f"


def run(task):
    import os
    os.environ["POLARS_MAX_THREADS"] = str(task.threads)
    import polars as pl
    from datetime import datetime
    from jobs import PATIENT_ELEMENT
    since = task.since and datetime.fromisoformat(task.since)
    references = pl.Series(task.members)
    ids = references.str.strip_prefix("Patient/")
    for kind, path in task.files:
        element = PATIENT_ELEMENT[kind]
        rows = pl.scan_csv(path, has_header=False, separator=SEPARATOR, quote_char=None,
                           schema={"line": pl.String}, infer_schema=False)
        line = pl.col("line")
        if task.formulation == "path":
            patient = line.str.json_path_match(f"$.{element}.reference" if element else "$.id")
            updated = line.str.json_path_match("$.meta.lastUpdated")
        else:
            shape = {element: pl.Struct({"reference": pl.String})} if element else {"id": pl.String}
            value = pl.col("value")
            patient = value.struct.field(element).struct.field("reference") if element else value.struct.field("id")
            updated = value.struct.field("meta").struct.field("lastUpdated")
            decoded = line.str.json_decode(pl.Struct({**shape, "meta": pl.Struct({"lastUpdated": pl.String})}))
            rows = rows.with_columns(value=decoded)
        rows = rows.filter(patient.is_in((references if element else ids).implode()))
        if since:
            # Chrono's parser wants one shape: Z becomes an offset, fractions are of any length.
            instant = updated.str.replace("Z$", "+00:00").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="ns")
            rows = rows.filter(instant > pl.lit(since))
        rows.select("line").sink_csv(task.target(kind), include_header=False, quote_style="never", separator=SEPARATOR)
