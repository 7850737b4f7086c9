"""The bill's own tests: it accepts what the facts order, and finds each way of paying too often or not at all."""

import io
import json
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracle")]

from checks import Wrong  # noqa: E402
from fleet import Bill, Fleet, Job  # noqa: E402


class Bucket:
    """Objects in memory."""

    def __init__(self):
        self.objects = {}

    def read(self, key):
        """An object, or None."""
        return self.objects.get(key)

    def keys(self, prefix):
        """The keys below a prefix."""
        return sorted(key for key in self.objects if key.startswith(prefix))


class Bills(unittest.TestCase):
    """A job of one batch of three rows; the third is tried again once."""

    def setUp(self):
        self.fleet = Fleet.__new__(Fleet)
        self.fleet.name, self.fleet.s3 = "f", Bucket()
        self.job = Job("j", None, "", "out", 3)
        self.again = [2]
        self.status = ["answered", "answered", "retried"]
        self.provider_status = "completed"
        self.accepted = {(1, 1, "n1"): [self.line("b1", "n1", 3)], (1, 2, "n2"): [self.line("b2", "n2", 1)]}

    @staticmethod
    def line(batch, nonce, rows):
        """A line of the ledger."""
        ids = [f"{nonce}-{at}" for at in range(rows)]
        return {"batch": batch, "rows": [{"custom_id": one, "prompt_sha256": "0" * 64} for one in ids]}

    def data(self, name, **columns):
        """Puts a data object; its reference."""
        import blake3
        import pyarrow as pa
        import pyarrow.parquet
        out = io.BytesIO()
        pa.parquet.write_table(pa.table(columns), out)
        self.fleet.s3.objects[f"f/{name}"] = out.getvalue()
        rows = len(next(iter(columns.values())))
        return {"key": name, "blake3": blake3.blake3(out.getvalue()).hexdigest(), "rows": rows}

    def fact(self, name, **fields):
        """Puts a fact."""
        self.fleet.s3.objects[f"f/jobs/j/{name}"] = json.dumps(fields).encode()

    def bill(self):
        """Puts all facts, and makes the bill."""
        first = {"number": 1, "attempt": 1, "nonce": "n1", "send_rows": 3, "data": self.data("d1", _row=[0, 1, 2])}
        second = {"number": 1, "attempt": 2, "nonce": "n2", "send_rows": len(self.again),
                  "data": self.data("d2", _row=self.again)}
        self.fact("2-plan.json", batches=[first])
        self.fact("4-results/00000001-a1.json", next=second, provider_status=self.provider_status,
                  data=self.data("r1", status=self.status))
        self.fact("4-results/00000001-a2.json", next=None, provider_status="completed",
                  data=self.data("r2", status=["answered"] * len(self.again)))
        for attempt, batch in ((1, "b1"), (2, "b2")):
            self.fact(f"3-submissions/00000001-a{attempt}/0003.json", step="submitted", provider_batch=batch,
                      adopted=attempt == 2)
        return Bill(self.fleet, self.job, self.accepted)

    def wrong(self, fragment):
        """The bill must find this."""
        with self.assertRaises(Wrong) as found:
            self.bill()
        self.assertIn(fragment, str(found.exception))

    def test_what_the_facts_order_is_right(self):
        bill = self.bill()
        self.assertEqual((bill.retried_rows, bill.adopted), (1, 1))
        self.assertEqual([line["batch"] for line in bill.first_attempts()], ["b1"])

    def test_a_batch_that_was_accepted_twice_is_found(self):
        self.accepted[1, 1, "n1"].append(self.line("b3", "n1", 3))
        self.wrong("batch 1-a1 was accepted 2 times")

    def test_a_batch_that_was_never_accepted_is_found(self):
        del self.accepted[1, 2, "n2"]
        self.wrong("batch 1-a2 was accepted 0 times")

    def test_a_batch_that_no_fact_orders_is_found(self):
        self.accepted[1, 1, "other"] = [self.line("b3", "other", 3)]
        self.wrong("nothing ordered it")

    def test_a_row_that_is_missing_in_a_batch_is_found(self):
        self.accepted[1, 1, "n1"] = [self.line("b1", "n1", 2)]
        self.wrong("was to have 3 rows, and has 2")

    def test_an_answered_row_that_is_sent_again_is_found(self):
        self.again, self.accepted[1, 2, "n2"] = [1, 2], [self.line("b2", "n2", 2)]
        self.wrong("rows [1] were answered in 1-a1 and are tried again")

    def test_a_log_that_names_another_batch_is_found(self):
        self.accepted[1, 2, "n2"] = [self.line("b9", "n2", 1)]
        self.wrong("the log of 1-a2")

    def test_a_batch_that_the_provider_failed_is_not_in_the_ledger(self):
        self.provider_status, self.status, self.again = "failed", ["retried"] * 3, [0, 1, 2]
        self.accepted = {(1, 2, "n2"): [self.line("b2", "n2", 3)]}
        self.assertEqual([line["batch"] for line in self.bill().first_attempts()], ["b2"])


if __name__ == "__main__":
    from ending import leave_after
    leave_after(unittest.main(exit=False))
