#!/usr/bin/env python3
"""The judge's own tests: a right output passes, and each kind of wrong one doesn't. No network, no program under test.

Two programs are played: a peer, and batchmill with three batches, its own custom ids and its own columns.
"""

import csv
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracle")]
import gen  # noqa: E402
import judge  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
from common import COLS, RESULT_COLS, STAGES, request, task_id  # noqa: E402
from ending import leave_after  # noqa: E402

ROWS, BATCH = 1_000, 400
DETAILS = ["response", "error", "status", "error_kind", "finish_reason", "model", "input_tokens", "cached_tokens",
           "output_tokens", "reasoning_tokens", "attempts", "cost_usd"]


def write_parquet(path, names, rows, metadata=None):
    """A Parquet file of these rows."""
    columns = list(zip(*rows)) or [[] for _ in names]
    table = pa.table({name: pa.array(column) for name, column in zip(names, columns)})
    pq.write_table(table.replace_schema_metadata(metadata), path)


def write_csv(path, names, rows):
    """A CSV file of these rows."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])


def write_lines(path, lines):
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


class Played:
    """What a program knows before it writes; a test changes it, or the folder afterwards."""

    def __init__(self, folder, world):
        self.folder = folder
        self.rows = [list(row) for row in world.rows]
        self.answers = {place: list(answer) for place, answer in world.answers.items()}
        for name in ("b", "bp", "j", "r"):
            (folder / name).mkdir(parents=True)

    def answer(self, place):
        """Status, response, error and both token counts."""
        return self.answers.get(place, [None] * 5)


class Peer(Played):
    """Two batches, ids with the row's number."""

    layout = "peer"

    def write(self):
        """All outputs."""
        ids = [task_id(place) for place in range(len(self.rows))]
        for number, first in enumerate(range(0, len(self.rows), 600)):
            part = [[task, *row] for task, row in zip(ids, self.rows)][first:first + 600]
            for name in ("b", "bp"):
                write_parquet(self.folder / name / f"batch-{number}.parquet", ["task_id", *COLS], part)
            write_lines(self.folder / "j" / f"batch-{number}.jsonl", [request(row[0], *row[2:]) for row in part])
        write_parquet(self.folder / "r" / "result-0.parquet", ["task_id", *RESULT_COLS],
                      [[task_id(place), *answer] for place, answer in self.answers.items()])
        merged = [[*row, *self.answer(place)] for place, row in enumerate(self.rows)]
        write_csv(self.folder / "out.csv", COLS + RESULT_COLS, merged)
        write_parquet(self.folder / "out.parquet", COLS + RESULT_COLS, merged)


class Ours(Played):
    """batches of 400 rows with a nonce each, raw records, the added columns behind the caller's."""

    layout = "batchmill"

    def added(self, place):
        """The added columns of a row."""
        status, response, error, read, written = self.answer(place)
        if status is None:
            return [None, "missing: there is no line for it", "failed", "missing", *[None] * 6, 1, None]
        if status == "400":
            return [None, f"invalid_request: {error} (400)", "failed", "invalid_request", *[None] * 6, 1, None]
        return [response, None, "answered", None, "stop", "gpt-4o-mini", int(read), 0, int(written), None, 1, None]

    def write(self):
        """All outputs."""
        for number, first in enumerate(range(0, len(self.rows), BATCH)):
            part = list(enumerate(self.rows))[first:first + BATCH]
            told, own = {"batchmill.batch": json.dumps({"nonce": f"abc{number}"})}, ["_row", "_error_kind", "_error", "_tries"]
            records = []
            for place, row in part:
                text = io.StringIO()
                csv.writer(text, lineterminator="\r\n").writerow(row)
                records.append([place, None, None, None, text.getvalue().encode()])
            write_parquet(self.folder / "b" / f"batch-{number:05}.parquet", [*own, "record"], records, told)
            write_parquet(self.folder / "bp" / f"batch-{number:05}.parquet", [*own, *COLS],
                          [[place, None, None, None, *row] for place, row in part], told)
            write_lines(self.folder / "j" / f"batch-{number:05}.jsonl",
                        [request(f"abc{number}-{place - first}", *row[1:]) for place, row in part])
        merged = [[*row, *self.added(place)] for place, row in enumerate(self.rows)]
        write_csv(self.folder / "out.csv", COLS + DETAILS, merged)
        write_parquet(self.folder / "out.parquet", COLS + DETAILS, merged)


class Judged(unittest.TestCase):
    """One table for all tests, and what must come of it."""

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="batchmill-compare-test-")
        folder = Path(cls.scratch.name)
        gen.make_input(ROWS, folder)
        (folder / "results").mkdir()
        gen.make_results(ROWS, folder / "results")
        judge.expect(folder / "input.csv", folder / "results", ROWS, folder / "expected")
        with open(folder / "input.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        answers, cls.refused = judge.answers(folder / "results" / "result-00000.jsonl")
        cls.world = SimpleNamespace(folder=folder, rows=rows, answers=answers)
        cls.answered = min(place for place in answers if place not in cls.refused)
        cls.missing = min(set(range(ROWS)) - set(answers))

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def judged(self, kind, change=lambda played: None, after=lambda folder: None):
        """What is wrong by stage, when a program's knowledge or its files were changed."""
        with tempfile.TemporaryDirectory(dir=self.world.folder) as folder:
            played = kind(Path(folder), self.world)
            change(played)
            played.write()
            after(played.folder)
            stages = [stage for stage in STAGES if kind is Peer or stage != "ingest"]
            return dict(judge.checks(played.folder, kind.layout, stages, self.world.folder / "expected"))

    def wrong(self, *arguments):
        """The stages whose output is wrong."""
        return {stage for stage, why in self.judged(*arguments).items() if why}

    def each(self, change, peer, ours):
        """The same change in both programs; the stages that must notice it."""
        for kind, stages in ((Peer, peer), (Ours, ours)):
            with self.subTest(kind.layout):
                self.assertEqual(self.wrong(kind, change), stages)

    def test_right_outputs_pass(self):
        for kind in (Peer, Ours):
            self.assertEqual(set(self.judged(kind).values()), {None}, kind.layout)

    def test_the_table_has_refused_and_missing_rows(self):
        self.assertTrue(self.refused and self.missing is not None)

    def test_a_changed_cell_is_seen(self):
        def change(played):
            played.rows[500][4] = played.rows[500][4] + "0"
        self.each(change, {"split_csv", "split_parquet", "encode", "merge_csv", "merge_parquet"},
                  {"split_csv", "split_parquet", "encode", "merge_csv", "merge_parquet"})

    def test_a_changed_id_is_seen_where_it_is_kept(self):
        def change(played):
            played.rows[7][0] = "SKU-other"
        kept = {"split_csv", "split_parquet", "merge_csv", "merge_parquet"}
        self.each(change, kept, kept)

    def test_swapped_rows_are_seen(self):
        def change(played):
            played.rows[3], played.rows[4] = played.rows[4], played.rows[3]
        every = {"split_csv", "split_parquet", "encode", "merge_csv", "merge_parquet"}
        self.each(change, every, every)

    def test_a_lost_row_is_seen(self):
        def change(played):
            played.rows.pop()
        every = {"split_csv", "split_parquet", "encode", "merge_csv", "merge_parquet"}
        self.each(change, every, every)
        self.assertIn("row 999 is not there", self.judged(Ours, change)["merge_csv"])

    def test_an_extra_row_is_seen(self):
        def change(played):
            played.rows.append(played.rows[0])
        every = {"split_csv", "split_parquet", "encode", "merge_csv", "merge_parquet"}
        self.each(change, every, every)

    def test_a_changed_answer_is_seen(self):
        def change(played):
            played.answers[self.answered][1] += " "
        self.each(change, {"ingest", "merge_csv", "merge_parquet"}, {"merge_csv", "merge_parquet"})

    def test_a_changed_token_count_is_seen(self):
        def change(played):
            played.answers[self.answered][4] = "1"
        self.each(change, {"ingest", "merge_csv", "merge_parquet"}, {"merge_csv", "merge_parquet"})

    def test_answers_of_two_rows_exchanged_are_seen(self):
        def change(played):
            first, second = [place for place in sorted(played.answers) if place not in self.refused][:2]
            played.answers[first], played.answers[second] = played.answers[second], played.answers[first]
        self.each(change, {"ingest", "merge_csv", "merge_parquet"}, {"merge_csv", "merge_parquet"})

    def test_a_refusal_with_another_message_is_seen(self):
        def change(played):
            played.answers[min(self.refused)][2] = "another one"
        self.each(change, {"ingest", "merge_csv", "merge_parquet"}, {"merge_csv", "merge_parquet"})

    def test_a_missing_row_with_an_answer_and_an_answered_row_without_are_seen(self):
        def invent(played):
            played.answers[self.missing] = ["200", "made up", None, "1", "1"]

        def forget(played):
            del played.answers[self.answered]
        for change in (invent, forget):
            self.each(change, {"ingest", "merge_csv", "merge_parquet"}, {"merge_csv", "merge_parquet"})

    def test_merged_rows_in_another_order_are_seen(self):
        def after(folder):
            table = pq.read_table(folder / "out.parquet")
            pq.write_table(table.take([1, 0, *range(2, ROWS)]), folder / "out.parquet")
        for kind in (Peer, Ours):
            self.assertEqual(self.wrong(kind, lambda played: None, after), {"merge_parquet"})

    def test_batches_of_ours_must_come_in_order_and_a_peers_need_not(self):
        def after(folder):
            path = next((folder / "b").glob("*0.parquet"))
            table, told = pq.read_table(path), pq.read_schema(path).metadata
            pq.write_table(table.take([1, 0, *range(2, table.num_rows)]).replace_schema_metadata(told), path)
        self.assertEqual(self.wrong(Peer, lambda played: None, after), set())
        self.assertEqual(self.wrong(Ours, lambda played: None, after), {"split_csv"})

    def test_a_row_twice_a_foreign_custom_id_and_an_unreadable_record_are_seen(self):
        def twice(folder):
            path = folder / "j" / "batch-00001.jsonl"
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text("".join([lines[0], *lines[:-1]]), encoding="utf-8")

        def foreign(folder):
            path = folder / "j" / "batch-00001.jsonl"
            path.write_text(path.read_text(encoding="utf-8").replace('"abc1-7"', '"abc9-7"'), encoding="utf-8")

        def glued(folder):
            path = folder / "b" / "batch-00000.parquet"
            table, meta = pq.read_table(path), pq.read_schema(path).metadata
            records = table["record"].to_pylist()
            records[0], records[1] = records[0] + records[1], b""
            table = table.set_column(4, "record", pa.array(records))
            pq.write_table(table.replace_schema_metadata(meta), path)
        for after, stages in ((twice, {"encode"}), (foreign, {"encode"}), (glued, {"split_csv"})):
            with self.subTest(after.__name__):
                self.assertEqual(self.wrong(Ours, lambda played: None, after), stages)

    def test_an_output_that_is_not_there_is_wrong(self):
        def after(folder):
            (folder / "out.csv").unlink()
            for path in (folder / "j").iterdir():
                path.unlink()
        for kind in (Peer, Ours):
            self.assertEqual(self.wrong(kind, lambda played: None, after), {"encode", "merge_csv"})

    def test_a_batch_over_the_providers_cap_is_wrong(self):
        before = judge.MAX_ROWS
        try:
            judge.MAX_ROWS = BATCH
            self.assertEqual(self.wrong(Ours), set())
            self.assertEqual(self.wrong(Peer), {"split_csv", "split_parquet"})
        finally:
            judge.MAX_ROWS = before


class Reported(unittest.TestCase):
    """The tables and the limits."""

    RUNS = {stage: {"pyarrow": [measure.Measure(2.0, 4.0, 200 << 20, 0.0, 1)] * 2,
                    "duckdb": [measure.Measure(1.0, 5.0, 300 << 20, 0.0, 1)] * 2,
                    "batchmill": [measure.Measure(0.5, cpu, 60 << 20, 0.0, 1) for cpu in (0.1, 0.1, 9.0)]}
            for stage in STAGES}

    def test_ratios_are_of_medians_against_the_best_peer(self):
        text = report.report(self.RUNS, "title")
        self.assertIn("| encode | pyarrow | 4.00 | 0.10 | **0.03** | 0.50 | pyarrow | 200 | 60 | 0.30 |", text)
        self.assertIn("batchmill 0.40 s of CPU, best peers 16.00 s, ratio **0.03**", text)

    def test_limits_are_kept_or_not(self):
        self.assertTrue(all(figure <= limit for _, figure, limit in report.gates(self.RUNS)))
        slow = {**self.RUNS, "encode": {**self.RUNS["encode"], "batchmill": [measure.Measure(1, 9.0, 300 << 20, 0, 1)]}}
        over = [what for what, figure, limit in report.gates(slow) if figure > limit]
        self.assertEqual(over, ["CPU of encode against the best peer", "peak MiB of encode",
                                "CPU of the CSV path against the best peers"])

    def test_a_stage_without_batchmill_fails_its_limit(self):
        runs = {"encode": {"pyarrow": self.RUNS["encode"]["pyarrow"]}}
        self.assertEqual([figure for _, figure, _ in report.gates(runs)], [None])

    def test_a_table_is_replaced_and_the_rest_is_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "doc.md"
            path.write_text("a\n<!-- compare:begin -->\nold\n<!-- compare:end -->\nb\n", encoding="utf-8")
            measure.write_between(path, "compare", "new\n")
            self.assertEqual(path.read_text(encoding="utf-8"), "a\n<!-- compare:begin -->\nnew\n<!-- compare:end -->\nb\n")
            with self.assertRaises(SystemExit):
                measure.write_between(path, "flat", "x")


if __name__ == "__main__":
    leave_after(unittest.main(exit=False))
