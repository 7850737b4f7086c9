#!/usr/bin/env python3
"""Polars: lazy frames, its streaming engine, its sinks."""

import os
import sys
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import COLS, MAX_BYTES, MAX_ROWS, MAX_TOKENS, MODEL, RESULT_COLS, SYSTEM, URL, files  # noqa: E402

CODEC = "snappy"
RESULT = pl.Struct({
    "custom_id": pl.String,
    "response": pl.Struct({"status_code": pl.Int32, "body": pl.Struct({
        "choices": pl.List(pl.Struct({"message": pl.Struct({"content": pl.String})})),
        "usage": pl.Struct({"prompt_tokens": pl.Int64, "completion_tokens": pl.Int64})})}),
    "error": pl.Struct({"message": pl.String})})


def split(source, out):
    """Batches of at most MAX_ROWS rows, cut by the sink."""
    rows = (pl.scan_csv(source, schema={name: pl.String for name in COLS}) if source.endswith(".csv")
            else pl.scan_parquet(source))
    number = pl.col("i").cast(pl.String).str.zfill(12)
    rows.with_row_index("i").select((pl.lit("t-") + number).alias("task_id"), *COLS).sink_parquet(
        pl.PartitionBy(out, max_rows_per_file=MAX_ROWS, approximate_bytes_per_file=1 << 60,
                       file_path_provider=lambda part: f"batch-{part.index_in_partition:05d}.parquet"),
        compression=CODEC)


def encode(batches, out):
    """Each batch as JSON lines."""
    user = pl.format("Title: {}\nDescription: {}\nCategory: {}\nPrice: {}", "title", "description", "category", "price")
    messages = pl.concat_list(pl.struct(pl.lit("system").alias("role"), pl.lit(SYSTEM).alias("content")),
                              pl.struct(pl.lit("user").alias("role"), user.alias("content")))
    body = pl.struct(pl.lit(MODEL).alias("model"), messages.alias("messages"), pl.lit(MAX_TOKENS).alias("max_tokens"))
    for path in files(batches, ".parquet"):
        target = f"{out}/{path.stem}.jsonl"
        pl.scan_parquet(path).select(pl.col("task_id").alias("custom_id"), pl.lit("POST").alias("method"),
                                     pl.lit(URL).alias("url"), body.alias("body")).sink_ndjson(target)
        if os.path.getsize(target) > MAX_BYTES:
            raise SystemExit(f"{target}: over the provider's size limit")


def ingest(results, out):
    """Each result file as Parquet. `scan_ndjson` with the same schema takes three times the CPU of these lines."""
    response = pl.col("response").struct
    body = response.field("body").struct
    usage = body.field("usage").struct
    choice = body.field("choices").list.get(0, null_on_oob=True).struct
    for path in files(results, ".jsonl"):
        lines = pl.scan_lines(path, name="line").select(pl.col("line").str.json_decode(RESULT)).unnest("line")
        lines.select(
            pl.col("custom_id").alias("task_id"), response.field("status_code").alias("status"),
            choice.field("message").struct.field("content").alias("response"),
            pl.col("error").struct.field("message").alias("error"),
            usage.field("prompt_tokens").alias("prompt_tokens"),
            usage.field("completion_tokens").alias("completion_tokens"),
        ).sink_parquet(f"{out}/{path.stem}.parquet", compression=CODEC)


def merge(batches, results, out):
    """A join that keeps the left side's order."""
    rows = pl.scan_parquet(files(batches, ".parquet")).join(
        pl.scan_parquet(files(results, ".parquet")), on="task_id", how="left", maintain_order="left")
    rows = rows.select(*COLS, *RESULT_COLS)
    if out.endswith(".csv"):
        rows.sink_csv(out)
    else:
        rows.sink_parquet(out, compression=CODEC)


if __name__ == "__main__":
    pl.Config.set_engine_affinity("streaming")
    {"split": split, "encode": encode, "ingest": ingest, "merge": merge}[sys.argv[1]](*sys.argv[2:])
