#!/usr/bin/env python3
"""DuckDB: one COPY a stage, or one a file where the stage goes file by file."""

import os
import sys
import tempfile
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import COLS, MAX_BYTES, MAX_TOKENS, MODEL, RESULT_COLS, SYSTEM, URL, files  # noqa: E402

CODEC = "snappy"
# a row group is closed at the first vector of 2,048 rows past its size: asked for 50,000, batches go over the provider's cap
GROUP = 47_104
RESULT = """{custom_id: 'VARCHAR',
    response: 'STRUCT(status_code INT, body STRUCT(choices STRUCT(message STRUCT(content VARCHAR))[],
                      usage STRUCT(prompt_tokens BIGINT, completion_tokens BIGINT)))',
    error: 'STRUCT(message VARCHAR)'}"""


def quoted(text):
    """A text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def split(db, source, out):
    """Batches of one row group each."""
    rows = (f"read_csv({quoted(source)}, header=true, delim=',', quote='\"', escape='\"', all_varchar=true)"
            if source.endswith(".csv") else f"read_parquet({quoted(source)})")
    db.execute(f"""COPY (SELECT format('t-{{:012d}}', row_number() OVER () - 1) AS task_id, * FROM {rows})
        TO {quoted(out)} (FORMAT parquet, COMPRESSION {CODEC}, ROW_GROUP_SIZE {GROUP}, ROW_GROUPS_PER_FILE 1,
                          FILENAME_PATTERN 'batch-{{i}}', OVERWRITE_OR_IGNORE true)""")


def encode(db, batches, out):
    """Each batch as JSON lines."""
    for path in files(batches, ".parquet"):
        target = f"{out}/{path.stem}.jsonl"
        db.execute(f"""COPY (SELECT task_id AS custom_id, 'POST' AS method, '{URL}' AS url,
            {{'model': '{MODEL}', 'messages': [
                {{'role': 'system', 'content': {quoted(SYSTEM)}}},
                {{'role': 'user', 'content': 'Title: ' || title || E'\\nDescription: ' || description ||
                  E'\\nCategory: ' || category || E'\\nPrice: ' || price}}],
              'max_tokens': {MAX_TOKENS}}} AS body FROM read_parquet({quoted(path)}))
            TO {quoted(target)} (FORMAT json)""")
        if os.path.getsize(target) > MAX_BYTES:
            raise SystemExit(f"{target}: over the provider's size limit")


def ingest(db, results, out):
    """Each result file as Parquet."""
    for path in files(results, ".jsonl"):
        db.execute(f"""COPY (SELECT custom_id AS task_id, response.status_code AS status,
            response.body.choices[1].message.content AS response, error.message AS error,
            response.body.usage.prompt_tokens AS prompt_tokens,
            response.body.usage.completion_tokens AS completion_tokens
            FROM read_json({quoted(path)}, format='newline_delimited', columns={RESULT}))
            TO {quoted(f"{out}/{path.stem}.parquet")} (FORMAT parquet, COMPRESSION {CODEC})""")


def merge(db, batches, results, out):
    """A join promises no order, so the order is asked for."""
    form = "FORMAT csv, HEADER true" if out.endswith(".csv") else f"FORMAT parquet, COMPRESSION {CODEC}"
    columns = ", ".join([*(f"b.{name}" for name in COLS), *(f"r.{name}" for name in RESULT_COLS)])
    db.execute(f"""COPY (SELECT {columns} FROM read_parquet({quoted(batches + '/*.parquet')}) b
        LEFT JOIN read_parquet({quoted(results + '/*.parquet')}) r USING (task_id) ORDER BY task_id)
        TO {quoted(out)} ({form})""")


def main():
    """The command. DuckDB spills past this limit instead of growing: a worker for batches would be given as much."""
    db = duckdb.connect()
    db.execute(f"SET memory_limit='4GB'; SET temp_directory={quoted(tempfile.gettempdir() + '/duckdb')}")
    {"split": split, "encode": encode, "ingest": ingest, "merge": merge}[sys.argv[1]](db, *sys.argv[2:])


if __name__ == "__main__":
    main()
