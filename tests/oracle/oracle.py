#!/usr/bin/env python3
"""An independent judge of an answered file: it shares no code with batchmill.

    oracle.py --input IN --output OUT --template TEXT|@FILE --model echo|digest [--ledger LEDGER.jsonl ...]

It reads input and output side by side, as streams, and checks that

- every input row is in the output exactly once, at its place;
- every cell of the caller's is unchanged: for CSV the record's bytes, for Parquet the columns' types and values;
- the header, delimiter, line ending, byte order mark and compression are the input's;
- the answer is what the model says to the prompt, rendered here by Jinja2: the prompt itself (`echo`) or its SHA-256
  in lower-case hex (`digest`), and the error column is empty;
- the ledgers together hold each row's prompt exactly once (a row with an empty prompt: never, and it has an error).

It prints `rows N ok` and exits 0, or the first differences and exits 1; 2 means that it could not read something.
"""

import argparse
import base64
import csv
import datetime
import decimal
import gzip
import hashlib
import itertools
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import jinja2
import jinja2.meta

BOM = b"\xef\xbb\xbf"
DELIMITERS = "\t,;|"
MOST = 8
CHUNK = 8192
csv.field_size_limit(1 << 30)


class Differences(Exception):
    """What is wrong with the output: at most MOST messages."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def add(self, message):
        """Notes a difference; when there are enough, gives up reading."""
        self.messages.append(message)
        if len(self.messages) >= MOST:
            self.messages.append("… and perhaps more")
            raise self

    def __str__(self):
        return "\n".join(self.messages)


# ---------------------------------------------------------------------------------------------------- prompts

def text_of(value):
    """How a value stands in a prompt: text verbatim, null as nothing, dates as ISO 8601, floats without an exponent."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return time_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, dict)):
        return json_text(value)
    return str(value)


def time_text(value):
    """ISO 8601, fractional digits only as needed, UTC as Z."""
    text = re.sub(r"(\.\d*?)0+(?=$|[+-])", r"\1", value.isoformat()) if getattr(value, "microsecond", 0) \
        else value.isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def json_text(value):
    """A value within a list or struct, as compact JSON: NaN and infinities are null, dates and decimals are text."""
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json_text(str(name))}:{json_text(item)}" for name, item in value.items()) + "}"
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return "null"
    text = text_of(value)
    return text if isinstance(value, (bool, int, float)) else json.dumps(text, ensure_ascii=False)


def float_text(value):
    """The shortest digits that give the same number again, never with an exponent: 1.0, 0.25, 100000000000000000000.0."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    digits = format(decimal.Decimal(repr(value)), "f")
    return digits if "." in digits else digits + ".0"


class Prompts:
    """Renders a template over a row."""

    def __init__(self, template):
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, finalize=text_of,
                                         keep_trailing_newline=True)
        self.template = environment.from_string(template)
        self.used = jinja2.meta.find_undeclared_variables(environment.parse(template))

    def columns(self, names):
        """Those of the columns that the template needs, in the file's order."""
        return list(names) if "row" in self.used else [name for name in names if name in self.used]

    def render(self, names, values):
        """The prompt of one row. `row` is always the whole row, also beside a column of that name."""
        row = dict(zip(names, values))
        return self.template.render({**row, "row": row})


def sha256(text):
    """Lower-case hex SHA-256 of a text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


MODELS = {"echo": lambda prompt: prompt, "digest": sha256}


class Expected:
    """What the answers must be, and how often each prompt must have been paid."""

    def __init__(self, template, model, differences):
        self.prompts, self.answer, self.differences = Prompts(template), MODELS[model], differences
        self.prompt_digests = None

    def count(self, ledger_digests):
        """Compares the rows to come with this multiset of prompt digests."""
        self.prompt_digests = ledger_digests

    def check(self, number, names, values, response, error):
        """One row's answer."""
        prompt = self.prompts.render(names, values)
        if not prompt:
            if response or not error:
                self.differences.add(f"row {number}: its prompt is empty, so it has an error and no answer; found "
                                     f"answer {response!r}, error {error!r}")
            return
        wanted = self.answer(prompt)
        if response != wanted:
            self.differences.add(f"row {number}: answer {response!r} is not {wanted!r} (prompt {prompt[:200]!r})")
        if error:
            self.differences.add(f"row {number}: error {error!r} beside an answer")
        if self.prompt_digests is not None:
            self.prompt_digests[bytes.fromhex(sha256(prompt))] -= 1

    def close(self):
        """After the last row: nothing may be left in the ledger, and nothing may be missing there."""
        for digest, count in (self.prompt_digests or {}).items():
            if count:
                self.differences.add(f"ledger: prompt {digest.hex()} was accepted {abs(count)} time(s) "
                                     f"{'too often' if count > 0 else 'too few'}")


def ledger_digests(paths):
    """The multiset of prompt digests in the ledgers. A last line cut off by a crash is no acceptance."""
    digests = Counter()
    for path in paths:
        with open(path, "rb") as lines:
            for line in lines:
                if line.endswith(b"\n") and line.strip():
                    digests.update(bytes.fromhex(row["prompt_sha256"]) for row in json.loads(line)["rows"])
    return digests


# ---------------------------------------------------------------------------------------------------- CSV

class CsvFile:
    """A delimited text file as a stream of (record's bytes without its line ending, line ending, cells)."""

    def __init__(self, path, delimiter=None):
        self.file = self.source = open(path, "rb")
        self.gzip = self.source.peek(2)[:2] == b"\x1f\x8b"
        if self.gzip:
            self.source = gzip.GzipFile(fileobj=self.file)
        self.bom = self.source.peek(3)[:3] == BOM
        if self.bom:
            self.source.read(3)
        first = self.source.readline()
        self.delimiter = delimiter or likely_delimiter(first)
        self.held = []
        lines = itertools.chain([first] if first else [], self.source)
        self.reader = csv.reader(self._texts(lines), delimiter=self.delimiter)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def _texts(self, lines):
        for line in lines:
            self.held.append(line)
            yield line.decode("utf-8")

    def __iter__(self):
        for cells in self.reader:
            record = self.held[0] if len(self.held) == 1 else b"".join(self.held)
            self.held.clear()
            if not cells:
                continue
            body = record.rstrip(b"\r\n") if record.endswith(b"\n") else record
            yield body, record[len(body):], cells


def likely_delimiter(line):
    """The candidate that the first line holds most often outside quotes."""
    outside = b"".join(line.split(b'"')[::2]).decode("utf-8", "replace")
    return max(DELIMITERS, key=outside.count) if any(map(outside.count, DELIMITERS)) else ","


def check_header(names, found, task):
    """The output's columns: the caller's, then the answer's, then others only with --details. Their places."""
    wanted = [task.response_column, task.error_column]
    added = found[len(names):]
    if found[:len(names)] != names or added[:2] != wanted or (added[2:] and not task.details):
        task.differences.add(f"columns: {found} is not {names} followed by {wanted}"
                             f"{' and details' if task.details else ''}")
        raise task.differences
    return len(names), len(names) + 1


def check_csv(task):
    """Compares two CSV files; the number of rows."""
    with CsvFile(task.input, task.delimiter) as source, CsvFile(task.output, source.delimiter) as output:
        return check_csv_files(task, source, output)


def check_csv_files(task, source, output):
    """Around the rows: compression, byte order mark, header."""
    for what in ("gzip", "bom"):
        if getattr(source, what) != getattr(output, what):
            task.differences.add(f"{what}: {getattr(source, what)} in the input, {getattr(output, what)} in the output")
    source_rows, output_rows = iter(source), iter(output)
    header, found = next(source_rows, None), next(output_rows, None)
    if header is None or found is None:
        task.differences.add(f"header: {'none in the input' if header is None else 'none in the output'}")
        raise task.differences
    check_header(header[2], found[2], task)
    check_record("header", header, found, header[1], source.delimiter, task.differences)
    return check_csv_rows(task, header, source_rows, output_rows, source.delimiter)


def check_record(name, source, output, file_ending, delimiter, differences):
    """The caller's bytes stand unchanged at the record's begin, and the line ends as the caller's lines do."""
    (body, ending, _), (found, found_ending, _) = source, output
    if not found.startswith(body + delimiter.encode()):
        differences.add(f"{name}: the input's record {body!r} is {found!r} in the output")
    allowed = {ending, file_ending} if ending else {ending, file_ending, b"\n"}
    if found_ending not in allowed:
        differences.add(f"{name}: line ending {ending!r} became {found_ending!r}")


def check_csv_rows(task, header, source_rows, output_rows, delimiter):
    """Row by row: the caller's bytes and cells, the line ending, the answer."""
    names, file_ending = header[2], header[1]
    width, number = len(names), 0
    for source, output in itertools.zip_longest(source_rows, output_rows):
        number += 1
        if source is None or output is None:
            task.differences.add(f"row {number}: only in the {'output' if source is None else 'input'}")
            continue
        check_record(f"row {number}", source, output, file_ending, delimiter, task.differences)
        cells, found = source[2], output[2]
        if found[:width] != cells or len(found) < width + 2:
            task.differences.add(f"row {number}: cells {cells} became {found}")
            continue
        task.expected.check(number, names, cells, found[width], found[width + 1])
    return number


# ---------------------------------------------------------------------------------------------------- Parquet

def chunks(file, columns):
    """A Parquet file's rows as tables of CHUNK rows (the last may be shorter), whatever its row groups are."""
    import pyarrow
    held = None
    for batch in file.iter_batches(batch_size=CHUNK, columns=columns):
        table = pyarrow.Table.from_batches([batch])
        held = table if held is None else pyarrow.concat_tables([held, table])
        while held.num_rows >= CHUNK:
            yield held.slice(0, CHUNK)
            held = held.slice(CHUNK)
    if held is not None and held.num_rows:
        yield held


def same(left, right):
    """Whether two values are equal, NaN equal to itself, at any depth."""
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (left != left and right != right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and left == right


def check_columns(first_row, source, output, names, differences):
    """The caller's columns of one chunk."""
    for name in names:
        left, right = source.column(name), output.column(name)
        if left.equals(right):
            continue
        for at, (a, b) in enumerate(zip(left.to_pylist(), right.to_pylist())):
            if not same(a, b):
                differences.add(f"row {first_row + at}: {name} {a!r} became {b!r}")


def check_schema(source, output, task):
    """The caller's columns keep name, type and nullability; the answer's are text."""
    names = source.names
    check_header(names, output.names, task)
    for at, name in enumerate(names):
        was, now = source.field(at), output.field(at)
        if was.type != now.type or was.nullable != now.nullable:
            task.differences.add(f"column {name}: {was} became {now}")
    for name in (task.response_column, task.error_column):
        if str(output.field(name).type) not in ("string", "large_string"):
            task.differences.add(f"column {name}: {output.field(name).type} is not text")


def prompt_values(column):
    """A column's values as prompts have them: of a 32-bit float the shortest digits that give it again, maps as dicts."""
    if str(column.type) == "float":
        return [None if text is None else float(text) for text in column.cast("string").to_pylist()]
    return column.to_pylist(maps_as_pydicts="strict")


def check_parquet(task):
    """Compares two Parquet files; the number of rows."""
    import pyarrow.parquet
    source, output = pyarrow.parquet.ParquetFile(task.input), pyarrow.parquet.ParquetFile(task.output)
    names = source.schema_arrow.names
    check_schema(source.schema_arrow, output.schema_arrow, task)
    if source.metadata.num_rows != output.metadata.num_rows:
        task.differences.add(f"{source.metadata.num_rows} rows in the input, {output.metadata.num_rows} in the output")
    used = task.expected.prompts.columns(names)
    number = 0
    for left, right in zip(chunks(source, None), chunks(output, None)):
        rows = min(left.num_rows, right.num_rows)
        check_columns(number + 1, left, right, names, task.differences)
        answers = right.column(task.response_column).to_pylist()
        errors = right.column(task.error_column).to_pylist()
        values = [prompt_values(left.column(name)) for name in used]
        for at in range(rows):
            task.expected.check(number + at + 1, used, [column[at] for column in values], answers[at], errors[at])
        number += rows
    return number


# ---------------------------------------------------------------------------------------------------- command

class Task:
    """One comparison: its files, its columns, what is expected."""

    def __init__(self, options):
        self.input, self.output, self.delimiter = options.input, options.output, options.delimiter
        self.response_column, self.error_column = options.response_column, options.error_column
        self.details = options.details
        self.differences = Differences()
        self.expected = Expected(options.template, options.model, self.differences)
        if options.ledger:
            self.expected.count(ledger_digests(options.ledger))

    def run(self):
        """The number of rows, when all is right; else raises Differences."""
        with open(self.input, "rb") as file:
            parquet = file.read(4) == b"PAR1"
        rows = check_parquet(self) if parquet else check_csv(self)
        self.expected.close()
        if self.differences.messages:
            raise self.differences
        return rows


def parser():
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    made.add_argument("--input", required=True, help="the caller's file: CSV, TSV, gzipped CSV or Parquet")
    made.add_argument("--output", required=True, help="the answered file")
    made.add_argument("--template", required=True, help="the prompt template, or @FILE")
    made.add_argument("--model", required=True, choices=sorted(MODELS), help="what the simulator's model does")
    made.add_argument("--ledger", action="append", default=[], help="a ledger of the simulator; may be repeated")
    made.add_argument("--response-column", default="response")
    made.add_argument("--error-column", default="error")
    made.add_argument("--details", action="store_true", help="more columns may follow")
    made.add_argument("--delimiter", help="the CSV delimiter, if not the likeliest")
    return made


def judge(**options):
    """For Python callers: the same options by name; the number of rows, or raises Differences."""
    words = [word for name, value in options.items() if value not in (None, False, [])
             for one in (value if isinstance(value, list) else [value])
             for word in ([f"--{name.replace('_', '-')}"] if one is True
                          else [f"--{name.replace('_', '-')}={one}"])]
    chosen = parser().parse_args(words)
    if chosen.template.startswith("@"):
        chosen.template = Path(chosen.template[1:]).read_text(encoding="utf-8")
    return Task(chosen).run()


def main():
    """The command: 0 right, 1 different, 2 unreadable."""
    try:
        print(f"rows {judge(**vars(parser().parse_args()))} ok")
        return 0
    except Differences as found:
        print(found)
        return 1
    except (OSError, UnicodeDecodeError, csv.Error, jinja2.TemplateError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    from ending import leave
    leave(main())
