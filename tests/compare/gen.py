#!/usr/bin/env python3
"""Makes the data of the comparison, the same at any time on any machine.

    gen.py input   --rows N --out FOLDER      FOLDER/input.csv and FOLDER/input.parquet: about 395 bytes a row as CSV
    gen.py results --rows N --out FOLDER      FOLDER/result-00000.jsonl, …: the provider's answers, 50,000 rows a file

Descriptions are sentences drawn at random, so that no codec gets repetition as a present, and one in four has what a
CSV or JSON writer must quote or escape. The answers come in shuffled order, 5 in 1,000 are refusals, 1 in 1,000 has no
line at all. All follows from the seed and the number of a block, so a longer table begins with the shorter one.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from common import MAX_ROWS, task_id
from words import ADJ, CATS, GLUE, HARD, NOUN

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracle"))
from ending import leave  # noqa: E402

SEED = 42
REFUSED = {"code": "invalid_request", "message": 'The "prompt" was rejected,\nby policy'}


def sentences(rng, words, lengths, hard):
    """One text a length. `hard` is the chance that a piece which needs quoting stands in its middle."""
    drawn = words[rng.integers(0, len(words), int(lengths.sum()))]
    ends = np.cumsum(lengths)
    is_hard = rng.random(len(lengths)) < hard
    piece = rng.integers(0, len(HARD), len(lengths))
    punctuated = rng.random(len(lengths)) < 0.5
    texts, start, drawn = [], 0, drawn.tolist()
    for number, end in enumerate(ends.tolist()):
        text = drawn[start:end]
        if punctuated[number] and len(text) > 8:
            text[3] += ","
            text[7] += "."
        if is_hard[number]:
            text.insert(len(text) // 2, HARD[piece[number]])
        texts.append(" ".join(text))
        start = end
    return texts


def block(start, rows):
    """So many rows of the table from row `start` on, all text: no program may turn 1.50 into 1.5."""
    rng = np.random.default_rng([SEED, start])
    titles = np.array(ADJ + NOUN, dtype=object)
    descriptions = np.array(NOUN * 2 + ADJ + GLUE * 4, dtype=object)
    # unique, neither sorted nor consecutive: a bijection on 40 bits
    numbers = np.arange(start, start + rows, dtype=np.uint64)
    mixed = (numbers * np.uint64(0x9E3779B1) + np.uint64(SEED)) & np.uint64((1 << 40) - 1)
    ids = [f"SKU-{number:010x}" for number in mixed.tolist()]
    title = sentences(rng, titles, rng.integers(3, 8, rows), 0.05)
    description = sentences(rng, descriptions, rng.integers(15, 85, rows), 0.25)
    category = np.array(CATS, dtype=object)[np.minimum(rng.geometric(0.06, rows) - 1, len(CATS) - 1)].tolist()
    price = ["%d.%02d" % divmod(cents, 100) for cents in rng.integers(49, 9999, rows).tolist()]
    return pa.table({"product_id": pa.array(ids), "title": pa.array(title), "description": pa.array(description),
                     "category": pa.array(category), "price": pa.array(price)})


def make_input(rows, folder):
    """The table as CSV (quoted where it must be, as usual exports are) and as Parquet."""
    writer = None
    with open(folder / "input.csv", "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
        for start in range(0, rows, MAX_ROWS):
            table = block(start, min(MAX_ROWS, rows - start))
            if writer is None:
                writer = pq.ParquetWriter(folder / "input.parquet", table.schema, compression="snappy")
                lines.writerow(table.schema.names)
            writer.write_table(table, row_group_size=MAX_ROWS)
            lines.writerows(zip(*(column.to_pylist() for column in table.columns)))
    writer.close()


def answer(number, row, place, content, tokens):
    """An answered line, as providers write them: the content is JSON text itself, so it is escaped twice."""
    used = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens),
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}}
    choice = {"index": 0, "message": {"role": "assistant", "content": content, "refusal": None}, "logprobs": None,
              "finish_reason": "stop"}
    body = {"id": f"chatcmpl-{place:016x}", "object": "chat.completion", "created": 1764000000 + place,
            "model": "gpt-4o-mini-2024-07-18", "choices": [choice], "usage": used, "service_tier": "default",
            "system_fingerprint": "fp_44added55e"}
    return {"id": f"batch_req_{number:05d}{place:08d}", "custom_id": task_id(row),
            "response": {"status_code": 200, "request_id": f"req_{place:016x}", "body": body}, "error": None}


def refusal(number, row, place):
    """A line of a request that the provider refused."""
    return {"id": f"batch_req_{number:05d}{place:08d}", "custom_id": task_id(row),
            "response": {"status_code": 400, "request_id": f"req_{place:016x}", "body": None}, "error": REFUSED}


def result_lines(number, first, rows):
    """The lines of one result file, in the order in which a provider happens to write them."""
    rng = np.random.default_rng([SEED, 7, number])
    text = sentences(rng, np.array(NOUN + ADJ + GLUE, dtype=object), rng.integers(8, 50, rows), 0.3)
    refused = rng.random(rows) < 0.005
    lost = rng.random(rows) < 0.001
    read, written = rng.integers(120, 400, rows).tolist(), rng.integers(10, 90, rows).tolist()
    category = np.array(CATS, dtype=object)[rng.integers(0, len(CATS), rows)].tolist()
    for place in rng.permutation(rows).tolist():
        if lost[place]:
            continue
        if refused[place]:
            yield refusal(number, first + place, place)
        else:
            content = orjson.dumps({"category": category[place], "summary": text[place], "confidence": 0.97}).decode()
            yield answer(number, first + place, place, content, (read[place], written[place]))


def make_results(rows, folder):
    """One result file for each 50,000 rows."""
    for number, first in enumerate(range(0, rows, MAX_ROWS)):
        with open(folder / f"result-{number:05d}.jsonl", "wb", buffering=1 << 20) as file:
            for line in result_lines(number, first, min(MAX_ROWS, rows - first)):
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def main():
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("what", choices=["input", "results"])
    arguments.add_argument("--rows", type=int, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    {"input": make_input, "results": make_results}[options.what](options.rows, options.out)
    return 0


if __name__ == "__main__":
    leave(main())
