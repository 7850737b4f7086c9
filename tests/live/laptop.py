"""`batchmill run`: real tables, kills, an interrupt, running again, and bad input."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import oracle
import settings
import tables
from checks import Wrong, expect

RUN_SECONDS = 300
PRODUCTS = settings.REPO / "tests" / "data" / "products.csv"

# Every table in its own form; some in others. One job each.
JOBS = [("movies", "original"), ("zipcodes", "original"), ("bundesliga", "original"), ("birdstrikes", "original"),
        ("airports", "original"), ("species", "original"), ("weather", "original"), ("disasters", "csv.gz"),
        ("unemployment", "original"),
        ("zipcodes", "parquet"), ("bundesliga", "parquet"), ("birdstrikes", "parquet"), ("airports", "parquet"),
        ("weather", "parquet"), ("disasters", "parquet")]


def batchmill(words, cwd, code=0):
    """Runs the command in a folder; its standard error, after a check of the exit code."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=RUN_SECONDS, check=False)
    said = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    expect(done.returncode == code, f"exit code {done.returncode}, not {code}:\n{said[-3000:]}")
    return said


def judge(source, output, template, data, **options):
    """The oracle's word on one job, its ledger included; the number of rows."""
    try:
        return oracle.judge(input=str(source), output=str(output), template=template,
                            ledger=[str(settings.ledger(data))], **{"model": "digest", **options})
    except oracle.Differences as found:
        raise Wrong(str(found)) from None


def paid(data):
    """The ledger's rows."""
    file = settings.ledger(data)
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    return sum(len(json.loads(line)["rows"]) for line in lines if line.endswith(b"\n"))


def real_table(name, form, folder):
    """One public table through `run`, then the oracle."""
    source, data = tables.make(name, form, folder), folder / "data"
    flags = ["--batch-rows", "5000"]
    batchmill(settings.run_words(settings.binary(), source, tables.template(name), "sim/digest", *flags, data=data),
              folder)
    rows = judge(source, settings.default_output(source), tables.template(name), data)
    print(f"     {name} ({form}): {rows} rows, every one once, in order, unchanged, rightly answered", flush=True)
    shutil.rmtree(folder)


def products(folder):
    """The README's command: no flag but the template and the model; and again, which pays nothing."""
    shutil.copy(PRODUCTS, folder)
    source, template = folder / PRODUCTS.name, "Describe {{ title }}"
    words = settings.run_words(settings.binary(), source.name, template, "sim/echo")
    data, output = settings.default_data(folder), settings.default_output(source)
    batchmill(words, folder)
    expect(judge(source, output, template, data, model="echo") == 62, "not 62 rows")
    before = settings.ledger(data).read_bytes(), output.read_bytes()
    batchmill(words, folder)
    expect((settings.ledger(data).read_bytes(), output.read_bytes()) == before, "the second run changed or paid something")


def made_table(make, template, folder):
    """A table made for its quirks, in small batches, then the oracle."""
    source, data = make(folder), folder / "data"
    batchmill(settings.run_words(settings.binary(), source, template, "sim/digest", "--batch-rows", "999", data=data),
              folder)
    judge(source, settings.default_output(source), template, data)


def empty_prompt(folder):
    """A row without a prompt fails alone and is never paid: exit code 3, also when run again."""
    source, data = written("id,title\n1,a\n2,\n3,c\n")(folder), folder / "data"
    words = settings.run_words(settings.binary(), source, "{{ title }}", "sim/digest", data=data)
    batchmill(words, folder, code=3)
    judge(source, settings.default_output(source), "{{ title }}", data)
    batchmill(words, folder, code=3)
    expect(paid(data) == 2, f"{paid(data)} rows paid")


def details(folder):
    """More columns, and another name for the answer's."""
    shutil.copy(PRODUCTS, folder)
    source, template, data = folder / PRODUCTS.name, "Describe {{ title }}", folder / "data"
    batchmill(settings.run_words(settings.binary(), source, template, "sim/digest", "--details", "--response-column",
                                 "copy", data=data), folder)
    judge(source, settings.default_output(source), template, data, details=True, response_column="copy")


# ------------------------------------------------------------------------------------------------ kills

# moment: (glob below the job's folder, signal, exit code); a negative code is a death by signal
MOMENTS = {
    "after the first batch data": ("1-batches/*.parquet", signal.SIGKILL, -9),
    "after the first file at the provider": ("3-submissions/*/0002.json", signal.SIGKILL, -9),
    "after the first collected batch": ("4-results/*.json", signal.SIGKILL, -9),
    "by Ctrl-C, after the first collected batch": ("4-results/*.json", signal.SIGINT, 130),
}


def killed(moment, folder):
    """Ends `run` at a moment told by its facts, runs it again: right output, each row paid once."""
    pattern, sign, code = MOMENTS[moment]
    source, data = tables.make("movies", "original", folder), folder / "data"
    words = [str(word) for word in settings.run_words(settings.binary(), source, tables.template("movies"),
                                                      "sim/digest", "--batch-rows", "1000", data=data)]
    with open(folder / "first.log", "wb") as log:
        child = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end = time.monotonic() + RUN_SECONDS
            while not settings.facts(data, pattern):
                expect(child.poll() is None, f"it ended with {child.returncode} before {pattern}:\n"
                                             f"{(folder / 'first.log').read_text(errors='replace')[-2000:]}")
                expect(time.monotonic() < end, f"no {pattern} within {RUN_SECONDS} s")
                time.sleep(0.002)
            child.send_signal(sign)
            ended = child.wait(60)
        finally:
            child.kill()
            child.wait()
    expect(ended == code, f"it ended with {ended}, not {code}")
    expect(settings.facts(data, "2-plan.json") or not paid(data), "something was paid before the plan")
    expect(not settings.default_output(source).exists(), "the output is there though the job was cut short")
    batchmill(words, folder)
    judge(source, settings.default_output(source), tables.template("movies"), data)
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------ bad input

def written(content, name="in.csv"):
    """A maker of an input file."""
    def make(folder):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / name
    return make


def absent(folder):
    """An input that isn't there."""
    return folder / "absent.csv"


def occupied(folder):
    """An input whose output's place is taken."""
    source = written("id,title\n1,a\n")(folder)
    settings.default_output(source).write_text("somebody's work\n", encoding="utf-8")
    return source


GOOD = "id,title\n1,a\n2,b\n"
# name: (maker, template, model, more flags, exit code, what standard error must contain)
BAD = {
    "a missing file": (absent, "{{ title }}", "sim/echo", [], 1, ["input_missing", "absent.csv"]),
    "an empty file": (written(""), "{{ title }}", "sim/echo", [], 1, ["input_empty", "in.csv"]),
    "a ragged row": (written("id,title\n1,a\n2,b,c\n"), "{{ title }}", "sim/echo", [], 1, ["bad_row", "in.csv", "row 2"]),
    "a row that is not UTF-8": (written(b"id,title\n1,a\n2,\xff\xfe\n"), "{{ title }}", "sim/echo", [], 1,
                                ["bad_row", "in.csv", "row 2", "UTF-8"]),
    "a duplicate header": (written("id,id\n1,a\n"), "{{ id }}", "sim/echo", [], 1, ["duplicate_column", "id"]),
    "an unknown column": (written(GOOD), "{{ titel }}", "sim/echo", [], 1, ["unknown_column", "titel", "title"]),
    "a response column that exists": (written(GOOD), "{{ title }}", "sim/echo", ["--response-column", "title"], 1,
                                      ["column_clash", "title"]),
    "an error column that exists": (written("id,error\n1,a\n"), "{{ id }}", "sim/echo", [], 1, ["column_clash", "error"]),
    "an output that is somebody's": (occupied, "{{ title }}", "sim/echo", [], 1, ["output_exists", "in.answers.csv"]),
    "not a Parquet file": (written(GOOD, "in.parquet"), "{{ title }}", "sim/echo", [], 1, ["input_format", "in.parquet"]),
    "a torn Parquet file": (written(b"PAR1" + bytes(range(200)), "in.parquet"), "{{ title }}", "sim/echo", [], 1,
                            ["input_corrupt", "in.parquet"]),
    "an unknown model": (written(GOOD), "{{ title }}", "sim/nope", [], 1, ["model_unknown", "nope"]),
    "an unknown provider": (written(GOOD), "{{ title }}", "nope/echo", [], 1, ["model_unknown", "nope"]),
    "a broken template": (written(GOOD), "{{ title", "sim/echo", [], 1, ["template_invalid"]),
    "batches of no rows": (written(GOOD), "{{ title }}", "sim/echo", ["--batch-rows", "0"], 2, ["--batch-rows"]),
    "an unknown flag": (written(GOOD), "{{ title }}", "sim/echo", ["--nope"], 2, ["--nope"]),
}


def bad_input(name, folder):
    """One bad input: exit code, message, nothing paid, no output left."""
    make, template, model, flags, code, fragments = BAD[name]
    source, data = make(folder), folder / "data"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    said = batchmill(settings.run_words(settings.binary(), source, template, model, *flags, data=data), folder, code)
    for fragment in fragments:
        expect(fragment in said, f"nothing about {fragment!r} in:\n{said[-2000:]}")
    expect(paid(data) == 0, "something was paid")
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    expect(after == before, f"files became {sorted(after)} of {sorted(before)}, or changed")


def second_try(folder):
    """A refusal holds as long as its cause: the same command goes on once the output's place is free."""
    source, data = occupied(folder), folder / "data"
    words = settings.run_words(settings.binary(), source, "{{ title }}", "sim/echo", data=data)
    for _ in range(2):
        expect("output_exists" in batchmill(words, folder, code=1), "nothing about the output")
    expect(paid(data) == 0, "something was paid")
    settings.default_output(source).unlink()
    batchmill(words, folder)
    judge(source, settings.default_output(source), "{{ title }}", data, model="echo")


def header_only(folder):
    """A header without rows is a success without rows."""
    source, data = written("id,title\n")(folder), folder / "data"
    batchmill(settings.run_words(settings.binary(), source, "{{ title }}", "sim/echo", data=data), folder)
    output = settings.default_output(source).read_text(encoding="utf-8")
    expect(output == "id,title,response,error\n", f"the output is {output!r}")
    expect(paid(data) == 0, "something was paid")


def run(checks, folder):
    """All of it."""
    def place(name):
        made = Path(folder) / "".join(letter if letter.isalnum() else "-" for letter in name)
        made.mkdir(parents=True)
        return made

    checks.run("run: the README's command", products, place("products"))
    checks.run("run: details and another response column", details, place("details"))
    checks.run("run: an odd CSV", made_table, tables.odd_csv, tables.ODD_CSV_TEMPLATE, place("odd csv"))
    checks.run("run: Parquet of many types", made_table, tables.types, tables.TYPES_TEMPLATE, place("types"))
    checks.run("run: a row with an empty prompt", empty_prompt, place("empty prompt"))
    for name, form in JOBS:
        checks.run(f"run: {name} ({form})", real_table, name, form, place(f"{name} {form}"))
    for moment in MOMENTS:
        checks.run(f"run: ended {moment}, and again", killed, moment, place(moment))
    for name in BAD:
        checks.run(f"bad input: {name}", bad_input, name, place(name))
    checks.run("bad input: set right, and again", second_try, place("second try"))
    checks.run("bad input: a header alone is no rows", header_only, place("header only"))
