#!/usr/bin/env python3
"""The files of the flat-memory table: rows of one size, as many as wanted, written as fast as the disk takes them.

    flat_gen.py csv|parquet --shape NAME --rows N --out FILE
    flat_gen.py results --requests FOLDER --out FOLDER      answers each request; a request file is removed when answered
    flat_gen.py count FILE                                  the rows of an answered file

A block of rows is made once, from a seed, and repeated behind a running number. So compression finds more than in real
tables; it is the memory that is looked at here, not the speed.
"""

import argparse
import csv
import io
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common import COLS, files

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracle"))
from ending import leave  # noqa: E402
from words import NOUN  # noqa: E402

ANSWER = (b'","response":{"status_code":200,"request_id":"r","body":{"model":"gpt-4o-mini","choices":[{"index":0,"message":'
          b'{"role":"assistant","content":"{\\"category\\":\\"Dairy\\",\\"summary\\":\\"As good as any.\\"}"},'
          b'"finish_reason":"stop"}],"usage":{"prompt_tokens":120,"completion_tokens":20}}},"error":null}\n')
CUSTOM_ID = b'"custom_id":"'
SHUFFLED = 1_000


def words(chance, size):
    """So many bytes of words."""
    text = " ".join(chance.choices(NOUN, k=size // 4 + 1))
    return text[:size].strip() or "x"


def short(chance):
    """About 60 bytes; one row in eight has a quoted cell."""
    category = 'Seasonal, "limited"' if chance.random() < 0.125 else "Everyday"
    return [words(chance, 12), words(chance, 22), category, f"{chance.randrange(100, 9999) / 100:.2f}"]


def usual(chance):
    """About 400 bytes, most of them in one cell, as in `gen.py`."""
    return [*short(chance)[:1], words(chance, 340), "Everyday", "1.00"]


def wide(chance):
    """100 columns."""
    return [*short(chance), *(words(chance, 8) for _ in range(95))]


def long(chance):
    """A prompt of 100 KB."""
    return ["title", words(chance, 100_000), "Everyday", "1.00"]


def tiny(chance):
    """The columns that the request needs, a byte or two in each."""
    return ["a", chance.choice("xyz"), "c", "1"]


# name: (a row's cells behind its number, rows in the repeated block)
SHAPES = {"usual": (usual, 10_000), "short": (short, 10_000), "wide": (wide, 2_000), "long": (long, 40), "tiny": (tiny, 10_000)}


def block(shape):
    """The repeated rows, without their number, and the names of all columns."""
    make, rows = SHAPES[shape]
    chance = random.Random(20261122)
    cells = [make(chance) for _ in range(rows)]
    return [*COLS, *(f"column{number}" for number in range(len(COLS), len(cells[0]) + 1))], cells


def make_csv(shape, rows, out):
    """The table as CSV."""
    names, cells = block(shape)
    tails = []
    for row in cells:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        tails.append(text.getvalue())
    with open(out, "w", encoding="utf-8", newline="", buffering=1 << 20) as file:
        file.write(",".join(names) + "\n")
        for first in range(0, rows, len(tails)):
            file.write("".join([f"{number},{tail}" for number, tail in zip(range(first, rows), tails)]))


def make_parquet(shape, rows, out):
    """The same table as Parquet."""
    names, cells = block(shape)
    columns = [pa.array(column) for column in zip(*cells)]
    schema = pa.schema([(name, pa.string()) for name in names])
    with pq.ParquetWriter(out, schema, compression="snappy") as writer:
        for first in range(0, rows, len(cells)):
            numbers = pa.array([str(number) for number in range(first, min(first + len(cells), rows))])
            part = [numbers, *(column.slice(0, len(numbers)) for column in columns)]
            writer.write_table(pa.table(part, schema=schema))


def answered(lines):
    """The answers to a block of requests, in another order than theirs."""
    found = [b'{"id":"b","custom_id":"' + line.split(CUSTOM_ID, 1)[1].split(b'"', 1)[0] + ANSWER for line in lines]
    return b"".join(reversed(found))


def make_results(requests, out):
    """One result file a request file. The disk needn't hold both wholly."""
    out.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(files(requests, ".jsonl")):
        with open(path, "rb", buffering=1 << 20) as lines, open(out / f"result-{number:05d}.jsonl", "wb") as file:
            part = []
            for line in lines:
                part.append(line)
                if len(part) == SHUFFLED:
                    file.write(answered(part))
                    part.clear()
            file.write(answered(part))
        path.unlink()


def count(path):
    """The rows of a table: no cell here has a line end."""
    if path.suffix == ".parquet":
        return pq.read_metadata(path).num_rows
    with open(path, "rb", buffering=0) as file:
        ends = 0
        while piece := file.read(1 << 20):
            ends += piece.count(b"\n")
    return ends - 1


def main():
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("what", choices=["csv", "parquet", "results", "count"])
    arguments.add_argument("file", type=Path, nargs="?")
    arguments.add_argument("--shape", choices=SHAPES)
    arguments.add_argument("--rows", type=int)
    arguments.add_argument("--requests", type=Path)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    if options.what == "results":
        make_results(options.requests, options.out)
    elif options.what == "count":
        print(count(options.file))
    else:
        {"csv": make_csv, "parquet": make_parquet}[options.what](options.shape, options.rows, options.out)
    return 0


if __name__ == "__main__":
    leave(main())
