"""The contract of the comparison: the table, the request and the limits that every program under test agrees on."""

import re
from pathlib import Path

COLS = ["product_id", "title", "description", "category", "price"]
RESULT_COLS = ["status", "response", "error", "prompt_tokens", "completion_tokens"]
STAGES = ["split_csv", "split_parquet", "encode", "ingest", "merge_csv", "merge_parquet"]
CSV_PATH = ["split_csv", "encode", "ingest", "merge_csv"]

# the provider's caps on one batch
MAX_ROWS = 50_000
MAX_BYTES = 200_000_000

MODEL = "gpt-4o-mini"
URL = "/v1/chat/completions"
MAX_TOKENS = 256
SYSTEM = ("You are a catalogue assistant for a grocery marketplace. Read the product below and answer with one JSON "
          "object with the keys \"category\", \"summary\" and \"confidence\". The summary is one plain sentence of at "
          "most forty words; do not invent facts that the text does not state.")


def prompt(title, description, category, price):
    """The user's message of a row."""
    return f"Title: {title}\nDescription: {description}\nCategory: {category}\nPrice: {price}"


def request(custom_id, title, description, category, price):
    """A row's line in the file that goes to the provider."""
    messages = [{"role": "system", "content": SYSTEM},
                {"role": "user", "content": prompt(title, description, category, price)}]
    return {"custom_id": custom_id, "method": "POST", "url": URL,
            "body": {"model": MODEL, "messages": messages, "max_tokens": MAX_TOKENS}}


def task_id(row):
    """The peers' custom id: the row's number in the input."""
    return f"t-{row:012d}"


def files(folder, ending):
    """A folder's files in the order of their numbers: `batch-10` comes behind `batch-9`."""
    return sorted(Path(folder).glob(f"*{ending}"),
                  key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
