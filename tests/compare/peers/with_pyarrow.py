#!/usr/bin/env python3
"""PyArrow and orjson as a careful engineer uses them: streaming, one batch in memory at a time.

With PROCS=2 the stages that go batch by batch (encode, ingest) run in a pool of two processes.
"""

import multiprocessing
import os
import sys
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "oracle")]
from common import COLS, MAX_BYTES, MAX_ROWS, MAX_TOKENS, MODEL, RESULT_COLS, SYSTEM, URL, files  # noqa: E402
from ending import leave  # noqa: E402

CODEC = "snappy"
PROCS = int(os.environ.get("PROCS", "1"))
RESULTS = pa.schema([("task_id", pa.string()), ("status", pa.int32()), ("response", pa.string()),
                     ("error", pa.string()), ("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64())])


def read_input(source):
    """Its schema and its rows in blocks."""
    if source.endswith(".csv"):
        reader = pcsv.open_csv(
            source, read_options=pcsv.ReadOptions(block_size=8 << 20),
            parse_options=pcsv.ParseOptions(newlines_in_values=True),
            convert_options=pcsv.ConvertOptions(column_types={name: pa.string() for name in COLS}))
        return reader.schema, reader
    file = pq.ParquetFile(source)
    return file.schema_arrow, file.iter_batches(batch_size=10_000)


def split(source, out):
    """Batches of at most MAX_ROWS rows."""
    schema, blocks = read_input(source)
    schema = pa.schema([("task_id", pa.string()), *schema])
    writer, batch, filled, row = None, 0, 0, 0
    for block in blocks:
        at = 0
        while at < block.num_rows:
            if writer is None:
                writer = pq.ParquetWriter(f"{out}/batch-{batch:05d}.parquet", schema, compression=CODEC)
            part = block.slice(at, MAX_ROWS - filled)
            numbers = pa.array(range(row, row + part.num_rows)).cast(pa.string())
            ids = pc.binary_join_element_wise("t-", pc.utf8_lpad(numbers, 12, "0"), "")
            writer.write_batch(pa.RecordBatch.from_arrays([ids, *part.columns], schema=schema))
            at, filled, row = at + part.num_rows, filled + part.num_rows, row + part.num_rows
            if filled == MAX_ROWS:
                writer.close()
                writer, filled, batch = None, 0, batch + 1
    if writer:
        writer.close()


def encode_one(job):
    """One batch as JSON lines."""
    source, target = job
    dumps, size = orjson.dumps, 0
    with open(target, "wb", buffering=1 << 20) as file:
        for block in pq.ParquetFile(source).iter_batches(batch_size=5_000):
            columns = [block.column(name).to_pylist() for name in ("task_id", "title", "description", "category", "price")]
            for task, title, description, category, price in zip(*columns):
                # written out here, not taken from common.request: a call a row would slow this peer down
                line = dumps({"custom_id": task, "method": "POST", "url": URL, "body": {"model": MODEL, "messages": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content":
                     f"Title: {title}\nDescription: {description}\nCategory: {category}\nPrice: {price}"}],
                    "max_tokens": MAX_TOKENS}}, option=orjson.OPT_APPEND_NEWLINE)
                file.write(line)
                size += len(line)
    if size > MAX_BYTES:
        raise SystemExit(f"{target}: over the provider's size limit")


def ingest_one(job):
    """One result file as Parquet, 10,000 rows in memory at a time."""
    source, target = job
    loads = orjson.loads
    columns = [[] for _ in RESULTS]
    task, status, response, error, read, written = [column.append for column in columns]

    def flush(writer):
        arrays = [pa.array(column, field.type) for column, field in zip(columns, RESULTS)]
        writer.write_batch(pa.record_batch(arrays, schema=RESULTS))
        for column in columns:
            column.clear()

    with pq.ParquetWriter(target, RESULTS, compression=CODEC) as writer, open(source, "rb", buffering=1 << 20) as file:
        for line in file:
            said = loads(line)
            reply, failure = said["response"], said["error"]
            body = reply and reply["body"]
            task(said["custom_id"])
            status(reply["status_code"] if reply else None)
            if body:
                usage = body["usage"]
                response(body["choices"][0]["message"]["content"])
                read(usage["prompt_tokens"])
                written(usage["completion_tokens"])
            else:
                response(None)
                read(None)
                written(None)
            error(failure["message"] if failure else None)
            if len(columns[0]) == 10_000:
                flush(writer)
        if columns[0]:
            flush(writer)


def each(function, jobs):
    """Runs the jobs, in a pool where that was asked for."""
    if PROCS == 1:
        for job in jobs:
            function(job)
        return
    with multiprocessing.get_context("fork").Pool(PROCS) as pool:
        for _ in pool.imap_unordered(function, jobs):
            pass


def encode(batches, out):
    """Every batch as JSON lines."""
    each(encode_one, [(str(path), f"{out}/{path.stem}.jsonl") for path in files(batches, ".parquet")])


def ingest(results, out):
    """Every result file as Parquet."""
    each(ingest_one, [(str(path), f"{out}/{path.stem}.parquet") for path in files(results, ".jsonl")])


def merge(batches, results, out):
    """Batch by batch: finds each task among its batch's results and appends. The order is the input's by itself."""
    writer = None
    for batch, result in zip(files(batches, ".parquet"), files(results, ".parquet"), strict=True):
        rows, found = pq.read_table(batch), pq.read_table(result)
        at = pc.index_in(rows["task_id"], value_set=found["task_id"].combine_chunks())
        found = found.select(RESULT_COLS).combine_chunks().take(at)
        rows = rows.select(COLS)
        for name in RESULT_COLS:
            rows = rows.append_column(name, found[name])
        if writer is None:
            writer = (pcsv.CSVWriter(out, rows.schema, write_options=pcsv.WriteOptions(quoting_style="needed"))
                      if out.endswith(".csv") else pq.ParquetWriter(out, rows.schema, compression=CODEC))
        writer.write_table(rows)
    writer.close()


if __name__ == "__main__":
    {"split": split, "encode": encode, "ingest": ingest, "merge": merge}[sys.argv[1]](*sys.argv[2:])
    leave(0)
