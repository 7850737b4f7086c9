#!/usr/bin/env python3
"""Compares what the programs wrote, row by row, with what follows from the input and the provider's answers.

    judge.py expect --input input.csv --results FOLDER --rows N --out EXPECTED
    judge.py check  --folder WORK --layout peer|batchmill --stages a,b --expected EXPECTED

`expect` works the right answer out once, with Python's own csv module and orjson; `check` says for each stage whether a
program's output is that, one JSON line a stage: {"stage", "wrong": null or why}. Programs that pass agree with one
another. Kept in memory is a digest of 16 bytes a row, never a file.
"""

import argparse
import hashlib
import itertools
import json
import sys
from pathlib import Path

import orjson
import pyarrow.parquet as pq

from common import COLS, MAX_BYTES, MAX_ROWS, STAGES, files, request
from rows import LAYOUTS, Wrong, csv_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracle"))
from ending import leave  # noqa: E402

SIZE = 16
ABSENT = bytes(SIZE)
# what a stage wrote: (which expectation, how it is read, whether the rows' order counts for every program)
OUTPUTS = {
    "split_csv": ("batches", lambda layout: layout.batches("b"), False),
    "split_parquet": ("batches", lambda layout: layout.batches("bp"), False),
    "encode": ("requests", lambda layout: layout.requests(), False),
    "ingest": ("results", lambda layout: layout.results(), False),
    "merge_csv": ("merged", lambda layout: layout.merged_csv(), True),
    "merge_parquet": ("merged", lambda layout: layout.merged_parquet(), True),
}


def digest(cells):
    """Equal for equal cells only: `repr` keeps cells, nulls and texts apart."""
    return hashlib.blake2b(repr(tuple(cells)).encode("utf-8", "surrogatepass"), digest_size=SIZE).digest()


class Table:
    """A digest for each row of the input, in the input's order."""

    def __init__(self, rows, data=None):
        self.rows, self.data = rows, data if data is not None else bytearray(rows * SIZE)

    def at(self, place):
        """The digest of a row."""
        return bytes(self.data[place * SIZE:(place + 1) * SIZE])

    def put(self, place, cells):
        """Notes a row: there are no rows behind the last, and none twice."""
        if not 0 <= place < self.rows:
            raise Wrong(f"there is a row {place}, but the input has rows 0 to {self.rows - 1}")
        if self.at(place) != ABSENT:
            raise Wrong(f"row {place} is there twice")
        self.data[place * SIZE:(place + 1) * SIZE] = digest(cells)

    def compare(self, expected):
        """Raises at the first row that is not as expected."""
        if self.data == expected.data:
            return
        bad = [place for place in range(self.rows) if self.at(place) != expected.at(place)]
        lost = [place for place in bad if self.at(place) == ABSENT]
        told = f"row {lost[0]} is not there" if lost else f"row {bad[0]} has other cells than expected"
        if not lost and expected.at(bad[0]) == ABSENT:
            told = f"row {bad[0]} should not be there"
        raise Wrong(f"{told}; {len(bad)} of {self.rows} rows are wrong")


def answers(path):
    """The answered cells of one result file by row, and the messages of the refused."""
    found, refused = {}, {}
    with open(path, "rb", buffering=1 << 20) as lines:
        for line in lines:
            said = orjson.loads(line)
            place, reply, error = int(said["custom_id"][2:]), said["response"], said["error"]
            body = reply["body"]
            used = body["usage"] if body else {}
            found[place] = [str(reply["status_code"]), body["choices"][0]["message"]["content"] if body else None,
                            error["message"] if error else None,
                            *(str(used[name]) if name in used else None for name in ("prompt_tokens", "completion_tokens"))]
            if error:
                refused[place] = error["message"]
    return found, refused


def expect(source, results, rows, out):
    """Writes the expected digests, and the refusals' messages, which batchmill puts into a longer text."""
    tables = {name: Table(rows) for name in ("batches", "requests", "results", "merged")}
    refused, lines = {}, csv_rows(source)
    if next(lines) != COLS:
        raise SystemExit(f"{source} has another header than {COLS}")
    numbered, place = enumerate(lines), -1
    for path in files(results, ".jsonl"):
        found, messages = answers(path)
        refused.update(messages)
        for place, cells in itertools.islice(numbered, MAX_ROWS):
            tables["batches"].put(place, cells)
            line = request("", *cells[1:])
            line.pop("custom_id")
            tables["requests"].put(place, [orjson.dumps(line, option=orjson.OPT_SORT_KEYS)])
            if answer := found.get(place):
                tables["results"].put(place, answer)
            tables["merged"].put(place, [*cells, *(answer or [None] * 5)])
    if place != rows - 1 or next(numbered, None):
        raise SystemExit(f"{source} has not {rows} rows, or {results} doesn't fit it")
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        (out / f"{name}.digests").write_bytes(table.data)
    (out / "refused.json").write_text(json.dumps(refused), encoding="utf-8")


def caps(folder, stage):
    """The provider's caps on a batch, and that there is something at all."""
    name, ending = {"split_csv": ("b", ".parquet"), "split_parquet": ("bp", ".parquet"), "encode": ("j", ".jsonl"),
                    "ingest": ("r", ".parquet")}.get(stage, (None, None))
    if name is None:
        return
    found = files(folder / name, ending)
    if not found:
        raise Wrong(f"there is no *{ending} in {name}")
    for path in found:
        if stage.startswith("split") and (rows := pq.read_metadata(path).num_rows) > MAX_ROWS:
            raise Wrong(f"{path.name} has {rows} rows, over the provider's cap of {MAX_ROWS}")
        if stage == "encode" and (size := path.stat().st_size) > MAX_BYTES:
            raise Wrong(f"{path.name} has {size} bytes, over the provider's cap of {MAX_BYTES}")


def check(stage, layout, expected):
    """Raises unless a stage's output is as expected."""
    name, read, strict = OUTPUTS[stage]
    wanted = (expected / f"{name}.digests").read_bytes()
    caps(layout.folder, stage)
    table, before = Table(len(wanted) // SIZE), -1
    for place, cells in read(layout):
        if (strict or layout.ordered) and place != before + 1:
            raise Wrong(f"row {place} follows on row {before}")
        before = place
        table.put(place, cells)
    table.compare(Table(table.rows, wanted))


def checks(folder, layout, stages, expected):
    """Yields each stage with what is wrong with it, or None."""
    refused = json.loads((expected / "refused.json").read_text(encoding="utf-8"))
    layout = LAYOUTS[layout](folder, {int(place): message for place, message in refused.items()})
    for stage in stages:
        try:
            check(stage, layout, expected)
            yield stage, None
        except Exception as error:  # an unreadable output is a wrong one
            yield stage, str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"


def main():
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("what", choices=["expect", "check"])
    arguments.add_argument("--input", type=Path)
    arguments.add_argument("--results", type=Path)
    arguments.add_argument("--rows", type=int)
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--layout", choices=LAYOUTS)
    arguments.add_argument("--stages", default=",".join(STAGES))
    arguments.add_argument("--expected", type=Path)
    options = arguments.parse_args()
    if options.what == "expect":
        expect(options.input, options.results, options.rows, options.out)
        return 0
    for stage, wrong in checks(options.folder, options.layout, options.stages.split(","), options.expected):
        print(json.dumps({"stage": stage, "wrong": wrong}), flush=True)
    return 0


if __name__ == "__main__":
    leave(main())
