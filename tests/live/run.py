#!/usr/bin/env python3
"""The live tests. `tests/run` calls this in the parts' Python; by hand:

    .parts/venv/bin/python tests/live/run.py laptop cluster rust       or one or two of them
    .parts/venv/bin/python tests/live/run.py laptop --keep
    .parts/venv/bin/python tests/live/run.py crash --all

laptop   `batchmill run`: public tables, kills, bad input                     (no servers)
cluster  four services as processes on a real Kafka and a real S3
rust     the Rust tests against the same servers (`cargo test --test live`)
crash    a part of the crash matrix; with --all the whole of it, with --only POINT its cells: see crash.py
load     a slow provider, a slow room, a large job beside a small one, processes that come and go, each asserted from
         Prometheus; only when named. load-full: the same with larger figures. --picture FILE draws the first as SVG
campaign two minutes of kills on Kafka and S3 of its own; `campaign.py` is the same for longer
compose  what compose/ would run, as processes: its commands, settings, health checks and Prometheus; only when named
tls      four services on a Kafka over TLS with a password; only when named, since it needs a build with `--features tls`:
         BATCHMILL_BIN says where that is

Prints one line a check, and `N passed, N failed` at the end. When something failed, or with --keep, the working folder
with every log stays, and its path is printed.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracle")]

import campaign  # noqa: E402
import cluster  # noqa: E402
import compose  # noqa: E402
import crash  # noqa: E402
import laptop  # noqa: E402
import load  # noqa: E402
import rescue  # noqa: E402
import settings  # noqa: E402
import tls  # noqa: E402
from checks import Checks, Wrong  # noqa: E402
from servers import S3, Kafka  # noqa: E402

STAGES = ["laptop", "cluster", "rust", "crash", "campaign"]
ONLY_NAMED = ["compose", "load", "load-full", "tls"]


def rust(checks, kafka, s3):
    """The conformance tests in Rust; their counts are added to ours."""
    env = {**os.environ, **s3.environment(), "BATCHMILL_TEST_KAFKA": kafka.brokers,
           "BATCHMILL_TEST_S3_ENDPOINT": s3.endpoint, "BATCHMILL_TEST_S3_BUCKET": s3.bucket}
    # The whole workspace, so that cargo keeps the features, and with them the build, of the other test runs.
    done = subprocess.run(["cargo", "test", "--workspace", "--test", "live"], cwd=settings.REPO, env=env,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    print(done.stdout, flush=True)
    found = re.findall(r"^test result: .*? (\d+) passed; (\d+) failed", done.stdout, re.MULTILINE)
    checks.passed += sum(int(passed) for passed, _ in found)
    checks.failed += sum(int(failed) for _, failed in found)
    if done.returncode != 0 and not any(int(failed) for _, failed in found) or not found:
        raise Wrong(f"cargo test ended with {done.returncode}")


def with_servers(checks, stages, folder, cells):
    """The stages that need Kafka and S3, on one of each."""
    with S3(folder, settings.BUCKET) as s3, Kafka(folder) as kafka:
        print(f"Kafka at {kafka.brokers}, S3 at {s3.endpoint}", flush=True)
        if "cluster" in stages:
            cluster.run(checks, folder / "cluster", kafka, s3)
        if "rust" in stages:
            checks.run("rust: tests on Kafka and S3", rust, checks, kafka, s3)
        if "crash" in stages:
            crash.run(checks, folder / "crash", kafka, s3, cells)


def over_tls(checks, folder):
    """The stage with a Kafka of its own."""
    with S3(folder, settings.BUCKET) as s3, tls.SecureKafka(folder) as kafka:
        print(f"Kafka over TLS at {kafka.brokers}, S3 at {s3.endpoint}", flush=True)
        tls.run(checks, folder / "services", kafka, s3)


def under_load(checks, folder, size, picture_file):
    """The stage with servers of its own."""
    with S3(folder, settings.BUCKET) as s3, Kafka(folder) as kafka:
        load.run(checks, folder / "services", kafka, s3, size, picture_file)


def main():
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("stages", nargs="*", metavar="STAGE",
                           help=f"of {', '.join(STAGES)} (all of these when none is named), {', '.join(ONLY_NAMED)}")
    arguments.add_argument("--keep", action="store_true", help="keep the working folder")
    arguments.add_argument("--all", action="store_true", help="crash: the whole matrix")
    arguments.add_argument("--only", metavar="POINT", help="crash: the cells of this point, or those that begin so")
    arguments.add_argument("--picture", metavar="FILE", help="load: draw the slow provider's time series as SVG")
    options = arguments.parse_args()
    stages = options.stages or STAGES
    if unknown := [stage for stage in stages if stage not in STAGES + ONLY_NAMED]:
        arguments.error(f"unknown stage {unknown[0]}: there are {', '.join(STAGES + ONLY_NAMED)}")
    if not settings.binary().exists():
        print(f"{settings.binary()} is missing: cargo build --workspace --all-targets, or set BATCHMILL_BIN\n0 passed, 1 failed")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended too
    checks, folder = Checks(), Path(tempfile.mkdtemp(prefix="batchmill-live-"))
    try:
        if "laptop" in stages:
            laptop.run(checks, folder / "laptop")
            rescue.run(checks, folder / "rescue")
        if set(stages) & {"cluster", "rust", "crash"}:
            cells = crash.chosen(options.all, options.only)
            checks.run("servers: Kafka and S3", with_servers, checks, stages, folder, cells)
        if "tls" in stages:
            checks.run("servers: Kafka over TLS and S3", over_tls, checks, folder / "tls")
        for stage, size in (("load", load.SMALL), ("load-full", load.LARGE)):
            if stage in stages:
                checks.run(f"{stage}: Kafka, S3 and Prometheus", under_load, checks, folder / stage, size, options.picture)
        if "compose" in stages:
            checks.run("compose: services as processes", compose.run, checks, folder / "compose")
        if "campaign" in stages:
            checks.run("campaign: two minutes", campaign.run, folder / "campaign", 2, campaign.CI_SEED)
    finally:
        if checks.failed or options.keep:
            print(f"logs are in {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    return checks.close()


if __name__ == "__main__":
    from ending import leave
    leave(main())
