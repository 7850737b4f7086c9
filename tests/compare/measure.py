"""What one stage of one program takes, as a whole process: seconds, CPU, peak memory."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
PARTS = Path(os.environ.get("BATCHMILL_PARTS") or REPO / ".parts").absolute()
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target").absolute()
PYTHON = PARTS / "peers" / "bin" / "python"


class Failed(Exception):
    """A command that didn't end with 0."""


@dataclass
class Measure:
    """One measurement. `other` is the share of all CPUs that other processes took meanwhile; peak and out in bytes."""

    wall: float
    cpu: float
    peak: int
    other: float
    out: int


def fetch_peers():
    """Python with the peers, in its pinned versions; a moment when it is there already."""
    done = subprocess.run([sys.executable, REPO / "tests" / "parts" / "fetch", "peers"], check=False,
                          env={**os.environ, "BATCHMILL_PARTS": str(PARTS)})
    if done.returncode:
        raise SystemExit("the peers can't be fetched: see above")


def binary(given):
    """The program under test, which must be there."""
    path = Path(given) if given else TARGET / "release" / "batchmill"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: `cargo build --release -p batchmill`, or name another with --bin")
    return path.absolute()


def python(*words):
    """Runs a script of this folder with the peers' Python; what it printed."""
    done = subprocess.run([PYTHON, "-B", *map(str, words)], cwd=HERE, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def size(path):
    """The bytes of a file, or of the files in a folder; what begins with a dot is a program's own state."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.glob("[!.]*") if file.is_file())


def empty(path):
    """Removes an output; a folder is made anew, so that each run begins alike."""
    if path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)
    if not path.suffix:
        path.mkdir(parents=True)


def once(words, out, env, log):
    """Runs a command that writes `out`. Earlier writes are on the disk before, so that nobody pays for another."""
    empty(out)
    os.sync()
    launcher = [sys.executable, "-I", "-S", HERE / "launch.py", log]
    done = subprocess.run([str(word) for word in [*launcher, *words]], env={**os.environ, **env}, capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise Failed(f"{words[0]} could not be started: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    if found["code"]:
        said = Path(log).read_text(encoding="utf-8", errors="replace")[-3000:]
        raise Failed(f"`{' '.join(map(str, words))}` ended with {found['code']}:\n{said}")
    return Measure(found["wall"], found["cpu"], found["peak"], found["other"], size(out))


def quietest(words, out, env, log, tries, quiet):
    """The same, again while others took more than the share `quiet` of the CPUs: the quietest of at most so many tries."""
    best = None
    for _ in range(tries):
        found = once(words, out, env, log)
        if best is None or found.other < best.other:
            best = found
        if best.other <= quiet:
            break
    return best


def warm(*paths):
    """Reads files once, so that the first program doesn't pay for the disk."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 22):
                pass


def machine():
    """How large this machine is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} cores, {memory:.0f} GiB"


def versions(command=None):
    """What was measured."""
    names = "pyarrow", "orjson", "polars", "duckdb"
    script = f"from importlib.metadata import version as v; print(', '.join(n + ' ' + v(n) for n in {names}))"
    told = [python("-c", script).strip(), f"Python {sys.version.split()[0]}"]
    if command is not None:
        said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
        if said.returncode:
            raise SystemExit(f"{command} --version ended with {said.returncode}: {said.stderr[-500:]}")
        told.insert(0, said.stdout.strip())
    return ", ".join(told)


def write_between(path, mark, text):
    """Replaces what stands between two marks of a document."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    whole = path.read_text(encoding="utf-8")
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise SystemExit(f"{path} has no place for the table: it needs the lines {begin} and {end}, once each")
    head, rest = whole.split(begin)
    path.write_text(f"{head}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}", encoding="utf-8")
