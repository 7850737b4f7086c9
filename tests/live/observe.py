#!/usr/bin/env python3
"""The dashboards and alerts on live data: every query is asked, and must find what it speaks of.

    .parts/venv/bin/python tests/live/observe.py          brings up what compose/ describes as local processes, runs the README's
                                                          job, asks every query, prints the URLs, and stays until Ctrl-C

Prometheus's data stays in the printed folder; the last line says how to look at it again. The stage `compose` of run.py
does the same and goes away.
"""

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracle")]

import queries  # noqa: E402
from checks import expect  # noqa: E402
from servers import PARTS, wait_until  # noqa: E402

# A panel's data is there after two scrapes of each service and two evaluations of a rate.
PATIENCE = 60


def ask(prometheus):
    """Asks every panel's and every alert's query; how many there were. A query that fails, that names a metric which does not
    exist, or that finds nothing though a job has run, is a finding."""
    panels = [(place, queries.filled_in(text)) for place, text in queries.panel_queries()]
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"] if rule["type"] == "alerting"]
    expect(rules, "Prometheus has no alerts")
    named = {metric for _, text in panels for metric, _ in queries.selectors(text)}
    named |= {metric for rule in rules for metric, _ in queries.selectors(rule["query"])}
    # A series of a model is born when a service meets it, and Prometheus sees it at its next look.
    await_none(lambda: sorted(named - set(prometheus.get("label/__name__/values"))), "metrics that do not exist")
    await_none(lambda: [f"{place}: {text}" for place, text in panels if not prometheus.query(text)], "queries without data")
    for rule in rules:
        expect(rule["health"] != "err", f"{rule['name']}: {rule.get('lastError')}")
        prometheus.query(rule["query"])
        for metric, matchers in queries.selectors(rule["query"]):
            selected = f"{metric}{{{matchers}}}"
            expect(prometheus.query(selected), f"{rule['name']}: nothing for {selected}")
    firing = [alert["labels"] for alert in prometheus.get("alerts")["alerts"] if alert["state"] == "firing"]
    expect(not firing, f"alerts that fire though nothing is wrong: {firing}")
    conserved(prometheus)
    print(f"     {len(panels)} queries of {sum(len(board['panels']) for board in queries.dashboards())} panels and "
          f"{len(rules)} alerts found their data", flush=True)
    return len(panels), len(rules)


def await_none(left, what):
    """Waits until nothing is left; else names what is."""
    found = []

    def none_is_left():
        found[:] = left()
        return not found
    try:
        wait_until(none_is_left, what, PATIENCE, every=1)
    except Exception as error:
        raise type(error)("\n".join([f"{error}:", *found])) from None


def conserved(prometheus):
    """By the metrics, a job has ended, and its rows are those that were planned."""
    def one(text):
        found = prometheus.query(text)
        return found[0][1] if found else 0
    planned, ended = one("sum(batchmill_merger_planned_rows_total)"), one("sum(batchmill_merger_rows_total)")
    expect(0 < planned == ended, f"{planned:.0f} rows were planned, {ended:.0f} ended")


def main():
    """The command."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    import compose
    folder = Path(tempfile.mkdtemp(prefix="batchmill-observe-"))
    stack = compose.Stack(folder / "stack")
    try:
        stack.up()
        compose.as_the_readme_says(stack, folder)
        prometheus = compose.Prometheus(stack)
        ask(prometheus)
        base = re.sub(r"/api/v1$", "", prometheus.url)
        print(f"Prometheus: {base}/graph   alerts: {base}/alerts   targets: {base}/targets")
        for room in compose.settings.ROOMS:
            print(f"{room}: http://127.0.0.1:{stack.ports[room, 9090]}/metrics")
        print("Ctrl-C ends it.", flush=True)
        stack.processes["prometheus"].stopped(10**9)
    except KeyboardInterrupt:
        pass
    finally:
        data = stack.mounts("prometheus").get("/prometheus")
        stack.close()
    if data is None or not Path(data).is_dir():
        shutil.rmtree(folder)
        return 1
    print(f"\nIts data again: {PARTS / 'prometheus' / 'usr' / 'bin' / 'prometheus'} --storage.tsdb.path={data} "
          f"--config.file={stack.mounts('prometheus')['/etc/prometheus/prometheus.yml']}")
    return 0


if __name__ == "__main__":
    from ending import leave
    leave(main())
