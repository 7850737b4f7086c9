"""Reads what the stages wrote, in one form for all programs: the place of a row in the input, and its cells.

Texts stay texts, numbers become texts, and an empty CSV cell is a null: the table has no empty texts, so nothing is
hidden by that. Everything is read in pieces, so that memory doesn't grow with the files.
"""

import csv
import json
import sys

import orjson
import pyarrow.parquet as pq

from common import COLS, RESULT_COLS, files

csv.field_size_limit(sys.maxsize)
PIECE = 10_000


class Wrong(Exception):
    """An output that isn't as it should be: where, and how."""


def text(cell):
    """A cell of any column as text."""
    return cell if cell is None or isinstance(cell, str) else str(cell)


def parquet_rows(path, names):
    """The rows of a Parquet file: these columns, by name."""
    file = pq.ParquetFile(path)
    if lacking := [name for name in names if name not in file.schema_arrow.names]:
        raise Wrong(f"{path.name} has no column {lacking[0]}: it has {', '.join(file.schema_arrow.names)}")
    for piece in file.iter_batches(batch_size=PIECE, columns=names):
        yield from zip(*(piece.column(name).to_pylist() for name in names))


def csv_rows(path):
    """The header and then the rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        yield from csv.reader(file, strict=True)


def record_cells(record, where):
    """The cells of one raw CSV record."""
    try:
        found = list(csv.reader([record.decode("utf-8")], strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Wrong(f"{where}: the record {record[:80]!r} can't be read: {error}") from error
    if len(found) != 1:
        raise Wrong(f"{where}: {record[:80]!r} holds {len(found)} records instead of one")
    return found[0]


class Peer:
    """The layout that the peers share: custom ids and `task_id` columns with the row's number."""

    # a peer may cut its files elsewhere and name them in another order: its rows are found by their ids
    ordered = False

    def __init__(self, folder, _refused):
        self.folder = folder

    def place(self, task):
        """The row that a custom id means."""
        if not task or not task.startswith("t-") or not task[2:].isdigit():
            raise Wrong(f"the custom id {task!r} is not of the form t-000000000012")
        return int(task[2:])

    def batches(self, name):
        """Each row of the batch files."""
        for path in files(self.folder / name, ".parquet"):
            for task, *cells in parquet_rows(path, ["task_id", *COLS]):
                yield self.place(task), cells

    def requests(self):
        """Each line of the request files, without its custom id, as JSON with sorted keys."""
        for path in files(self.folder / "j", ".jsonl"):
            with open(path, "rb", buffering=1 << 20) as lines:
                for line in lines:
                    request = orjson.loads(line)
                    place = self.place(request.pop("custom_id", None))
                    yield place, [orjson.dumps(request, option=orjson.OPT_SORT_KEYS)]

    def results(self):
        """Each row of the result files."""
        for path in files(self.folder / "r", ".parquet"):
            for task, *cells in parquet_rows(path, ["task_id", *RESULT_COLS]):
                yield self.place(task), [text(cell) for cell in cells]

    def merged_csv(self):
        """Each row of the merged CSV file, in its order."""
        rows = csv_rows(self.folder / "out.csv")
        if (header := next(rows, None)) != COLS + RESULT_COLS:
            raise Wrong(f"the header of out.csv is {header}")
        for place, row in enumerate(rows):
            yield place, [cell or None for cell in row]

    def merged_parquet(self):
        """Each row of the merged Parquet file, in its order."""
        for place, row in enumerate(parquet_rows(self.folder / "out.parquet", COLS + RESULT_COLS)):
            yield place, [text(cell) for cell in row]


class Batchmill:
    """batchmill's layout: `<nonce>-<place>` as custom ids, raw records in the batches, its own columns behind the caller's."""

    ordered = True
    ANSWER = ["response", "error", "status", "error_kind", "input_tokens", "output_tokens"]
    STATUS = {"missing": None, "invalid_request": "400"}

    def __init__(self, folder, refused):
        self.folder, self.refused = folder, refused
        self.bases = None

    def find_bases(self):
        """The first row of each batch by its nonce."""
        bases, first = {}, 0
        for path in files(self.folder / "b", ".parquet"):
            footer = pq.read_metadata(path)
            said = (footer.metadata or {}).get(b"batchmill.batch")
            if said is None:
                raise Wrong(f"{path.name} has no batchmill.batch in its metadata")
            bases[json.loads(said)["nonce"]] = first
            first += footer.num_rows
        return bases

    def place(self, task):
        """The row that a custom id means."""
        if self.bases is None:
            self.bases = self.find_bases()
        nonce, _, place = (task or "").rpartition("-")
        if nonce not in self.bases or not place.isdigit():
            raise Wrong(f"the custom id {task!r} is not <nonce>-<place> of any batch")
        return self.bases[nonce] + int(place)

    def batches(self, name):
        """Each row of the batch files, its raw record taken apart."""
        for path in files(self.folder / name, ".parquet"):
            if "record" in pq.read_schema(path).names:
                for row, record in parquet_rows(path, ["_row", "record"]):
                    yield row, record_cells(record, f"{path.name}, row {row}")
            else:
                for row, *cells in parquet_rows(path, ["_row", *COLS]):
                    yield row, cells

    requests = Peer.requests

    def translated(self, place, cells, answer):
        """A merged row in the peers' columns.

        The error cell must hold the provider's message, whatever stands around it; any other text is left as it is, and
        then differs from what is expected.
        """
        response, error, status, kind, read, written = answer
        if status == "answered":
            return [*cells, "200", response, error, read, written]
        message = self.refused.get(place)
        if message is not None and error is not None and message in error:
            error = message
        elif kind == "missing" and (error or "").startswith("missing"):
            error = None
        return [*cells, self.STATUS.get(kind, f"{status}, {kind}"), response, error, read, written]

    def merged_csv(self):
        """Each row of the merged CSV file, in its order."""
        rows = csv_rows(self.folder / "out.csv")
        header = next(rows, [])
        if header[:len(COLS)] != COLS or any(name not in header for name in self.ANSWER):
            raise Wrong(f"the header of out.csv is {header}")
        at = [header.index(name) for name in self.ANSWER]
        for place, row in enumerate(rows):
            if len(row) != len(header):
                raise Wrong(f"out.csv, row {place}: {len(row)} cells instead of {len(header)}")
            row = [cell or None for cell in row]
            yield place, self.translated(place, row[:len(COLS)], [row[index] for index in at])

    def merged_parquet(self):
        """Each row of the merged Parquet file, in its order."""
        path = self.folder / "out.parquet"
        if (names := pq.read_schema(path).names)[:len(COLS)] != COLS:
            raise Wrong(f"the columns of out.parquet are {names}")
        for place, row in enumerate(parquet_rows(path, COLS + self.ANSWER)):
            row = [text(cell) for cell in row]
            yield place, self.translated(place, row[:len(COLS)], row[len(COLS):])


LAYOUTS = {"peer": Peer, "batchmill": Batchmill}
