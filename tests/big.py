#!/usr/bin/env python3
"""A file of any length through `batchmill run`: seconds, peak memory, and the oracle's word.

    .parts/venv/bin/python tests/big.py --rows 1000000 [--bin target/release/batchmill] [--keep FOLDER]
    .parts/venv/bin/python tests/big.py --rows 200000 --rows 1000000      also compares their peaks: less than a tenth apart
    python3 tests/big.py --only-make /tmp/big.csv --rows 1000000

The table is made from a seed, so it is the same each time. The peak is the kernel's count for the process that did
the whole job (`ru_maxrss` of wait4). A child begins with its parent's peak in that count, so this script must stay
smaller than what it measures: the oracle runs in a process of its own.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "oracle"), str(HERE / "live")]
TEMPLATE = "Describe {{ title }} of {{ category }} in 20 words."
WORDS = ("amber anchor basket beacon birch bottle bridge candle canvas cedar cobalt copper cotton ember fjord garnet "
         "harbour indigo ivory juniper lantern linen maple marble meadow nickel ochre olive opal quartz river saffron "
         "slate timber umber velvet walnut willow").split()
CATEGORIES = ["Kitchen", "Home", "Office", "Outdoor", "Toys", "Garden", "Café, bar", 'Size 7"']


def make(path, rows, seed=20240229):
    """Writes a CSV table of so many rows: about 110 bytes each, one cell in eight quoted."""
    chance = random.Random(seed)
    pick = [" ".join(chance.choices(WORDS, k=2)) for _ in range(4096)]
    categories = ['"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text for text in CATEGORIES]
    with open(path, "w", encoding="utf-8", newline="") as out:
        out.write("id,title,category,price,description\n")
        for first in range(0, rows, 10_000):
            lines = []
            for number in range(first, min(first + 10_000, rows)):
                bits = chance.getrandbits(48)
                lines.append(f"{number:08},{pick[bits & 4095]} {number},{categories[bits >> 12 & 7]},"
                             f"{bits >> 15 & 1023}.{bits >> 25 & 7}0,{pick[bits >> 28 & 4095]} {pick[bits >> 36 & 4095]}\n")
            out.writelines(lines)


def run(words, log):
    """Runs a command; its exit code, seconds and peak resident memory in MB."""
    began = time.monotonic()
    with open(log, "wb") as out:
        null = os.open(os.devnull, os.O_RDONLY)
        pid = os.posix_spawn(words[0], words, os.environ, file_actions=[
            (os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, out.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, out.fileno(), 2)])
        os.close(null)
        _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - began, usage.ru_maxrss / 1024


def measure(rows, options, folder):
    """One file through `run` and the oracle; the peak in MB."""
    import settings
    folder.mkdir(parents=True)
    source, output, data = folder / "big.csv", folder / "big.out.csv", folder / "data"
    make(source, rows)
    words = settings.run_words(options.bin, source, TEMPLATE, "sim/digest", data=data, output=output)
    words += ["--batch-rows", str(options.batch_rows)] if options.batch_rows else []
    code, seconds, peak = run([str(word) for word in words], folder / "run.log")
    if code != 0:
        print((folder / "run.log").read_text(errors="replace")[-3000:])
        raise SystemExit(f"{rows} rows: exit code {code}")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if own >= peak:
        raise SystemExit(f"this script takes {own:.0f} MB itself: a peak of {peak:.0f} MB says nothing")
    words = [sys.executable, HERE / "oracle" / "oracle.py", "--input", source, "--output", output, "--template", TEMPLATE,
             "--model", "digest", "--ledger", settings.ledger(data)]
    judged = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    said = judged.stdout.strip() + judged.stderr.strip()
    print(f"{rows} rows, {source.stat().st_size / 1e6:.0f} MB: {seconds:.1f} s, {rows / seconds:.0f} rows/s, "
          f"peak {peak:.1f} MB; oracle: {said}", flush=True)
    if said != f"rows {rows} ok":
        raise SystemExit(f"the oracle saw something else than {rows} rows")
    return peak


def main():
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("--rows", type=int, action="append", required=True, help="may be repeated")
    arguments.add_argument("--bin", default=str(HERE.parent / "target/release/batchmill"), help="the command")
    arguments.add_argument("--batch-rows", type=int, help="rows in a batch, if not batchmill's default")
    arguments.add_argument("--keep", type=Path, help="work in this folder and keep it")
    arguments.add_argument("--only-make", type=Path, help="write the table there and stop")
    options = arguments.parse_args()
    if options.only_make:
        make(options.only_make, options.rows[0])
        return 0
    with tempfile.TemporaryDirectory(prefix="batchmill-big-") as scratch:
        peaks = [measure(rows, options, (options.keep or Path(scratch)) / str(rows)) for rows in options.rows]
    if max(peaks) > 1.1 * min(peaks):
        print(f"peaks differ by more than a tenth: {', '.join(f'{peak:.0f} MB' for peak in peaks)}")
        return 1
    return 0


if __name__ == "__main__":
    from ending import leave
    leave(main())
