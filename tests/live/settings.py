"""All that the tests know of batchmill's surface: command lines, settings, event forms, where facts lie.

The rest of the harness asks here, so that a changed flag, key or topic is changed in one place.
"""

import json
import os
import uuid
from pathlib import Path
from string import Template

REPO = Path(__file__).resolve().parents[2]
ROOMS = ["splitter", "dispatcher", "poller", "merger"]
JOBS_TOPIC = "batchmill.jobs.v1"
JOB_SUBMITTED = "io.batchmill.job.submitted.v1"
BUCKET, PREFIX = "lake", "batchmill"


def binary():
    """The command under test: $BATCHMILL_BIN, or what cargo built last in the debug profile."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target")
    return Path(os.environ.get("BATCHMILL_BIN") or target / "debug" / "batchmill").absolute()


# ------------------------------------------------------------------------------------------------ batchmill run

def run_words(command, source, template, model, *flags, data=None, output=None):
    """`batchmill run`."""
    words = [command, "run", source, "--template", template, "--model", model]
    words += ["--data", data] if data else []
    words += ["--output", output] if output else []
    return [*words, *flags]


def default_output(source):
    """`INPUT` with `.answers` before its extension (`.csv.gz` is one extension)."""
    source = Path(source)
    ending = ".csv.gz" if source.name.endswith(".csv.gz") else source.suffix
    return source.with_name(source.name.removesuffix(ending) + ".answers" + ending)


def default_data(folder):
    """`run`'s data folder without `--data`, when started in `folder`."""
    return Path(folder) / ".batchmill"


def ledger(data):
    """The ledger of `run`'s own simulator."""
    return Path(data) / "simulator" / "ledger.jsonl"


def facts(data, pattern):
    """`run`'s facts and data objects: a glob below the job's folder."""
    return list((Path(data) / "store" / "jobs").glob(f"*/{pattern}"))


# ------------------------------------------------------------------------------------------------ the cluster

def config(folder, room, kafka, s3, simulator_url, admin_port):
    """Writes the settings of one room; the file's path."""
    text = Template((Path(__file__).parent / "cluster.toml.in").read_text(encoding="utf-8")).substitute(
        brokers=kafka.brokers, store=f"s3://{BUCKET}/{PREFIX}", bucket=BUCKET, endpoint=s3.endpoint,
        simulator=simulator_url, admin_port=admin_port, scratch=Path(folder) / f"scratch-{room}")
    path = Path(folder) / f"{room}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def environment(s3):
    """The environment of every service: secrets come from nowhere else."""
    return {**os.environ, **s3.environment(), "NO_COLOR": "1"}


def config_show_words(command, settings):
    """Shows the settings."""
    return [command, "config", "show", "--config", settings]


def room_words(command, room, settings):
    """One room as a service."""
    return [command, room, "--config", settings]


def simulator_words(command, port, data):
    """The simulator as a service; its ledger is `ledger.jsonl` in the folder."""
    return [command, "simulator", "--listen", f"127.0.0.1:{port}", "--data", data]


def simulator_ledger(data):
    """The ledger of the simulator as a service."""
    return Path(data) / "ledger.jsonl"


def topics_words(command, settings):
    """Creates the topics."""
    return [command, "topics", "apply", "--config", settings]


def submit_words(command, spec_file, settings):
    """Produces `job.submitted`."""
    return [command, "submit", "--spec", spec_file, "--config", settings]


def status_words(command, job, settings):
    """Says how a job stands."""
    return [command, "status", job, "--config", settings]


def key(job, name):
    """A fact's object key."""
    return f"{PREFIX}/jobs/{job}/{name}"


def spec(job, source, output, template, model="sim/digest", rows=1000):
    """A job specification."""
    return {"id": job, "input": {"uri": f"s3://{BUCKET}/{source}"}, "output": {"uri": f"s3://{BUCKET}/{output}"},
            "request": {"model": model, "template": template}, "batch": {"max_rows": rows}}


def event(form, job_spec):
    """The record's headers and body that ask for a job: `plain`, `structured` or `binary` (CloudEvents 1.0)."""
    body = json.dumps(job_spec, ensure_ascii=False).encode()
    attributes = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/tests/live", "type": JOB_SUBMITTED,
                  "subject": job_spec["id"]}
    if form == "plain":
        return [("content-type", b"application/json")], body
    if form == "structured":
        whole = {**attributes, "datacontenttype": "application/json", "data": job_spec}
        return [("content-type", b"application/cloudevents+json; charset=UTF-8")], json.dumps(whole).encode()
    if form == "binary":
        return [("content-type", b"application/json"),
                *((f"ce_{name}", value.encode()) for name, value in attributes.items())], body
    raise ValueError(form)
