#!/usr/bin/env python3
"""The dashboards and the alerts by their rules, without data. No servers, no network, some seconds:

    .parts/deploy/bin/python tests/compose/dashboards.py

What the queries find on live data is asked by `tests/live/observe.py`.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "live"))

import queries  # noqa: E402

PARTS = Path(os.environ.get("BATCHMILL_PARTS") or REPO / ".parts").absolute()
PROMTOOL = PARTS / "prometheus" / "usr" / "bin" / "promtool"
COMPOSE, RUNBOOKS = REPO / "compose", REPO / "docs" / "runbooks"
# Grafana's own names of units.
UNITS = {"short", "s", "bytes", "cps", "reqps", "rowsps", "percentunit", "currencyUSD"}
# What is no metric of batchmill's: Prometheus' own, and the client library's of the process.
FOREIGN = re.compile(r"up|process_\w+")


def promtool(*words):
    """Runs promtool; the finished process."""
    return subprocess.run([str(word) for word in (PROMTOOL, *words)], cwd=REPO, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False)


def documented():
    """Metric: type, by docs/METRICS.md."""
    rows = re.findall(r"^\| `(batchmill_\w+)` \| (\w+) \|", (REPO / "docs" / "METRICS.md").read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


def kind_of(metric, known):
    """The type of a metric, or of the histogram that it belongs to; none if there is no such metric."""
    base = re.sub(r"_(bucket|count|sum)$", "", metric)
    return known.get(metric) or ("counter" if known.get(base) == "histogram" else None)


class Dashboards(unittest.TestCase):
    """The rules of Grafana's dashboard linter, and that each metric exists."""

    def test_they_are_what_the_generator_writes(self):
        done = subprocess.run([sys.executable, COMPOSE / "grafana" / "make.py", "--check"], capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_each_can_be_used_with_any_datasource_job_and_instance(self):
        boards = queries.dashboards()
        self.assertEqual(len(boards), 4)
        self.assertEqual(len({board["uid"] for board in boards}), 4)
        for board in boards:
            names = [variable["name"] for variable in board["templating"]["list"]]
            self.assertEqual(names[:3], ["datasource", "job", "instance"], board["title"])
            self.assertFalse(board["editable"])
            self.assertTrue(board["links"] and board["description"] and board["tags"] == ["batchmill"])
            self.assertTrue(all(variable.get("refresh") for variable in board["templating"]["list"]))

    def test_each_panel_says_what_it_shows_in_which_unit(self):
        for board in queries.dashboards():
            self.assertEqual(len({panel["id"] for panel in board["panels"]}), len(board["panels"]))
            for panel in board["panels"]:
                with self.subTest(board=board["title"], panel=panel["title"]):
                    self.assertTrue(panel["title"] and panel["description"].endswith("."))
                    self.assertIn(panel["fieldConfig"]["defaults"]["unit"], UNITS)
                    self.assertTrue(panel["targets"])
                    for target in [panel, *panel["targets"]]:
                        self.assertEqual(target["datasource"]["uid"], "${datasource}")
                    self.assertTrue(all(target["legendFormat"] for target in panel["targets"]))

    def test_no_two_panels_of_a_board_lie_on_one_another(self):
        for board in queries.dashboards():
            taken = set()
            for panel in board["panels"]:
                at = panel["gridPos"]
                cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
                self.assertFalse(cells & taken, panel["title"])
                self.assertLessEqual(at["x"] + at["w"], 24)
                taken |= cells

    def test_each_query_names_job_and_instance_and_takes_the_rate_of_counters(self):
        known = documented()
        for place, text in queries.panel_queries():
            with self.subTest(place=place, query=text):
                found = queries.selectors(text)
                self.assertTrue(found)
                for metric, matchers in found:
                    self.assertIn('job=~"$job"', matchers)
                    self.assertIn('instance=~"$instance"', matchers)
                    if FOREIGN.fullmatch(metric):
                        continue
                    kind = kind_of(metric, known)
                    self.assertIsNotNone(kind, f"there is no metric {metric}")
                    rated = re.search(rf"(rate|increase)\({re.escape(metric)}\{{", text) is not None
                    self.assertEqual(rated, kind == "counter", metric)
                for window in re.findall(r"\[([^\]]+)\]", text):
                    self.assertIn(window, ("$__rate_interval", "$__range"))

    def test_each_query_is_promql(self):
        rules = [{"record": f"panel:{at}", "expr": queries.filled_in(text)} for at, (_, text) in enumerate(queries.panel_queries())]
        with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
            json.dump({"groups": [{"name": "panels", "rules": rules}]}, file)
            file.flush()
            done = promtool("check", "rules", file.name)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Alerts(unittest.TestCase):
    """The alerts, their pages, and the examples."""

    def test_promtool_takes_the_rules_and_the_configuration(self):
        for path in sorted((COMPOSE / "prometheus" / "rules").glob("*.yml")):
            done = promtool("check", "rules", path)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_examples_fire_and_stay_silent_as_they_say(self):
        done = promtool("test", "rules", "tests/compose/rules.yml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_alert_has_an_example_that_fires_and_one_that_does_not(self):
        examples = yaml.safe_load((REPO / "tests" / "compose" / "rules.yml").read_text(encoding="utf-8"))["tests"]
        seen = {(check["alertname"], bool(check["exp_alerts"])) for example in examples for check in example["alert_rule_test"]}
        wanted = {(rule["alert"], fires) for rule in queries.alerts() for fires in (True, False)}
        self.assertEqual(seen, wanted)

    def test_each_alert_says_what_and_how_urgent_and_has_a_page_and_each_page_an_alert(self):
        rules = queries.alerts()
        for rule in rules:
            self.assertIn(rule["labels"]["severity"], ("page", "ticket"))
            self.assertIn("for", rule)
            self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"])
            self.assertEqual(rule["annotations"]["runbook_url"], f"docs/runbooks/{rule['alert']}.md")
            page = (RUNBOOKS / f"{rule['alert']}.md").read_text(encoding="utf-8")
            self.assertTrue(page.startswith(f"# {rule['alert']}\n"))
        self.assertEqual({path.stem for path in RUNBOOKS.glob("*.md")}, {rule["alert"] for rule in rules})

    def test_each_metric_of_an_alert_or_a_page_exists(self):
        known = documented()
        named = {metric for rule in queries.alerts() for metric, _ in queries.selectors(rule["expr"])}
        pages = "".join(path.read_text(encoding="utf-8") for path in RUNBOOKS.glob("*.md"))
        for metric in named | set(re.findall(r"batchmill_\w+", pages)):
            self.assertTrue(FOREIGN.fullmatch(metric) or kind_of(metric, known), metric)


if __name__ == "__main__":
    unittest.main()
