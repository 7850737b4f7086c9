"""The oracle's own tests: it accepts a right output and catches each kind of damage."""

import gzip
import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import oracle  # noqa: E402

TEMPLATE = "Describe {{ title }} ({{ row['id'] }})"
INPUT = 'id,title,note\r\n007,Ånge,plain\r\n008," spaced ","two\r\nlines"\r\n009,"a ""b"", c",\r\n'
CELLS = [("007", "Ånge"), ("008", " spaced "), ("009", 'a "b", c')]


def prompt(cells):
    """The prompt of one row, written without the oracle."""
    return f"Describe {cells[1]} ({cells[0]})"


class Files(unittest.TestCase):
    """A folder with an input, its right output and its ledger."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.answers = [oracle.sha256(prompt(cells)) for cells in CELLS]
        self.put("in.csv", INPUT)
        self.ledger(self.answers)

    def path(self, name):
        """A file in the folder."""
        return Path(self.folder.name) / name

    def put(self, name, text):
        """Writes a file."""
        self.path(name).write_bytes(text.encode() if isinstance(text, str) else text)

    def ledger(self, digests):
        """Writes a ledger of one batch."""
        rows = [{"custom_id": f"n-{at}", "prompt_sha256": digest} for at, digest in enumerate(digests)]
        self.put("ledger.jsonl", json.dumps({"batch": "batch_1", "file": "file-1", "rows": rows}) + "\n")

    def judge(self, source="in.csv", output="out.csv", **options):
        """Runs the oracle."""
        chosen = {"template": TEMPLATE, "model": "digest", "ledger": [str(self.path("ledger.jsonl"))], **options}
        return oracle.judge(input=str(self.path(source)), output=str(self.path(output)), **chosen)

    def refused(self, fragment, **options):
        """The oracle must name this difference."""
        with self.assertRaises(oracle.Differences) as found:
            self.judge(**options)
        self.assertIn(fragment, str(found.exception))


class Csv(Files):
    """Delimited text."""

    def right(self):
        """The right output's records, header first, without line endings."""
        a = self.answers
        return ["id,title,note,response,error", f"007,Ånge,plain,{a[0]},",
                f'008," spaced ","two\r\nlines",{a[1]},', f'009,"a ""b"", c",,{a[2]},']

    def write(self, records, ending="\r\n"):
        """Writes the output."""
        self.put("out.csv", "".join(record + ending for record in records))

    def test_a_right_output_passes(self):
        self.write(self.right())
        self.assertEqual(self.judge(), 3)

    def test_an_answer_may_be_quoted(self):
        records = self.right()
        records[1] = f'007,Ånge,plain,"{self.answers[0]}",""'
        self.write(records)
        self.assertEqual(self.judge(), 3)

    def test_a_lost_row_is_found(self):
        self.write(self.right()[:-1])
        self.refused("row 3: only in the input")

    def test_a_row_too_many_is_found(self):
        self.write(self.right() + self.right()[-1:])
        self.refused("row 4: only in the output")

    def test_swapped_rows_are_found(self):
        records = self.right()
        records[1], records[3] = records[3], records[1]
        self.write(records)
        self.refused("row 1: cells")

    def test_a_changed_cell_is_found(self):
        self.write([record.replace("007", "7") for record in self.right()])
        self.refused("row 1: cells ['007', 'Ånge', 'plain'] became ['7'")

    def test_a_requoted_cell_is_found(self):
        self.write([record.replace('" spaced "', " spaced ") for record in self.right()])
        self.refused("row 2: the input's record")

    def test_a_wrong_answer_is_found(self):
        self.write([record.replace(self.answers[1], self.answers[0]) for record in self.right()])
        self.refused("row 2: answer")

    def test_an_error_beside_an_answer_is_found(self):
        records = self.right()
        records[1] += "server_error"
        self.write(records)
        self.refused("row 1: error 'server_error'")

    def test_a_changed_line_ending_is_found(self):
        self.write(self.right(), ending="\n")
        self.refused("line ending")

    def test_a_lost_byte_order_mark_is_found(self):
        self.put("in.csv", oracle.BOM + INPUT.encode())
        self.write(self.right())
        self.refused("bom: True in the input, False in the output")

    def test_a_lost_compression_is_found(self):
        self.put("in.csv", gzip.compress(INPUT.encode()))
        self.write(self.right())
        self.refused("gzip: True in the input, False in the output")

    def test_a_missing_column_is_found(self):
        self.write([record.removesuffix(",error").removesuffix(",") for record in self.right()])
        self.refused("columns:")

    def test_another_column_needs_details(self):
        self.write([record + ",x" for record in self.right()])
        self.refused("columns:")
        self.assertEqual(self.judge(details=True), 3)

    def test_row_is_the_whole_row_beside_a_column_of_that_name(self):
        """As the template's rules say."""
        self.assertEqual(oracle.Prompts("{{ row['row'] }}").render(["row"], ["x"]), "x")

    def test_a_row_paid_twice_is_found(self):
        self.write(self.right())
        self.ledger(self.answers + self.answers[:1])
        self.refused(f"prompt {self.answers[0]} was accepted 1 time(s) too often")

    def test_a_row_never_paid_is_found(self):
        self.write(self.right())
        self.ledger(self.answers[1:])
        self.refused(f"prompt {self.answers[0]} was accepted 1 time(s) too few")

    def test_a_torn_last_ledger_line_is_no_acceptance(self):
        self.write(self.right())
        with self.path("ledger.jsonl").open("ab") as ledger:
            ledger.write(b'{"batch":"batch_2","rows":[{"custom_id"')
        self.assertEqual(self.judge(), 3)

    def test_an_empty_prompt_wants_an_error_and_no_payment(self):
        self.put("in.csv", "id,title\n1,\n2,x\n")
        self.ledger([oracle.sha256("x")])
        self.put("out.csv", f"id,title,response,error\n1,,,empty prompt\n2,x,{oracle.sha256('x')},\n")
        self.assertEqual(self.judge(template="{{ title }}"), 2)
        self.put("out.csv", f"id,title,response,error\n1,,{oracle.sha256('')},\n2,x,{oracle.sha256('x')},\n")
        self.refused("its prompt is empty", template="{{ title }}")

    def test_the_last_line_may_lack_its_ending(self):
        self.put("in.csv", "id,title\n1,a\n2,b")
        self.put("out.csv", "id,title,response,error\n1,a,a,\n2,b,b,")
        self.assertEqual(self.judge(template="{{ title }}", model="echo", ledger=[]), 2)

    def test_tabs_and_semicolons_are_detected(self):
        for delimiter in "\t;":
            self.put("in.csv", "id,title\n1,a\n".replace(",", delimiter))
            self.put("out.csv", "id,title,response,error\n1,a,a,\n".replace(",", delimiter))
            self.assertEqual(self.judge(template="{{ title }}", model="echo", ledger=[]), 1)

    def test_a_header_alone_is_no_rows(self):
        self.put("in.csv", "id,title\n")
        self.put("out.csv", "id,title,response,error\n")
        self.assertEqual(self.judge(ledger=[]), 0)


class Parquet(Files):
    """Parquet, more rows than one chunk holds, in row groups of another size."""

    ROWS = oracle.CHUNK + 100

    def setUp(self):
        super().setUp()
        import pyarrow as pa
        import pyarrow.parquet as pq
        self.pa, self.pq = pa, pq
        self.source = pa.table({
            "id": pa.array(range(self.ROWS), pa.int32()),
            "title": pa.array([None if n % 7 == 0 else f"t{n}" for n in range(self.ROWS)]).dictionary_encode(),
            "price": pa.array([float("nan") if n % 5 == 0 else n / 4 for n in range(self.ROWS)]),
        })
        pq.write_table(self.source, self.path("in.parquet"), row_group_size=1000)
        prompts = [f"{'' if n % 7 == 0 else f't{n}'} {n}" for n in range(self.ROWS)]
        self.output = self.source.append_column("response", pa.array(map(oracle.sha256, prompts))) \
            .append_column("error", pa.nulls(self.ROWS, pa.string()))
        self.ledger(map(oracle.sha256, prompts))

    def compare(self, output):
        """Runs the oracle on this output."""
        self.pq.write_table(output, self.path("out.parquet"), row_group_size=1777)
        return self.judge("in.parquet", "out.parquet", template="{{ title }} {{ id }}")

    def wrong(self, output, fragment):
        """The oracle must name this difference."""
        with self.assertRaises(oracle.Differences) as found:
            self.compare(output)
        self.assertIn(fragment, str(found.exception))

    def test_a_right_output_passes(self):
        self.assertEqual(self.compare(self.output), self.ROWS)

    def test_a_lost_row_is_found(self):
        self.wrong(self.output.slice(1), f"{self.ROWS} rows in the input, {self.ROWS - 1} in the output")

    def test_swapped_rows_are_found(self):
        order = self.pa.array([1, 0, *range(2, self.ROWS)])
        self.wrong(self.output.take(order), "row 1: id 0 became 1")

    def test_a_changed_value_past_the_first_chunk_is_found(self):
        ids = [*range(self.ROWS - 1), 5]
        self.wrong(self.output.set_column(0, "id", self.pa.array(ids, self.pa.int32())),
                   f"row {self.ROWS}: id {self.ROWS - 1} became 5")

    def test_a_changed_type_is_found(self):
        self.wrong(self.output.set_column(0, "id", self.output["id"].cast(self.pa.int64())),
                   "column id: pyarrow.Field<id: int32> became pyarrow.Field<id: int64>")

    def test_a_wrong_answer_is_found(self):
        answers = self.output["response"].to_pylist()
        answers[8] = answers[9]
        self.wrong(self.output.set_column(3, "response", self.pa.array(answers)), "row 9: answer")


class Rendering(unittest.TestCase):
    """Values in a prompt."""

    def test_each_type_has_one_spelling(self):
        import datetime
        for value, text in [(None, ""), (True, "true"), (7, "7"), (1.0, "1.0"), (0.25, "0.25"), (1e21, "1" + "0" * 21 + ".0"),
                            (datetime.date(2024, 2, 29), "2024-02-29"), ("007", "007"), ([1, None, "é"], '[1,null,"é"]'),
                            (datetime.datetime(2024, 2, 29, 1, 2, 3, 500000, datetime.UTC), "2024-02-29T01:02:03.5Z"),
                            (datetime.time(10, 0), "10:00:00"), (b"\xff", "/w=="),
                            ({"a": [float("nan"), 1e21, True]}, '{"a":[null,1000000000000000000000.0,true]}')]:
            self.assertEqual(oracle.Prompts("{{ x }}").render(["x"], [value]), text)

    def test_an_unknown_column_is_an_error(self):
        with self.assertRaises(oracle.jinja2.UndefinedError):
            oracle.Prompts("{{ y }}").render(["x"], ["1"])


if __name__ == "__main__":
    from ending import leave_after
    leave_after(unittest.main(exit=False))
