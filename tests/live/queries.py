"""The queries of the dashboards and of the alerts, as they are committed."""

import json
import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
DASHBOARDS = REPO / "compose" / "grafana" / "dashboards"
RULES = REPO / "compose" / "prometheus" / "rules"
# What Grafana puts in the place of its variables, on data that is seconds old.
VARIABLES = {"$job": ".+", "$instance": ".+", "$provider": ".+", "$__rate_interval": "20s", "$__range": "10m"}


def dashboards():
    """The dashboards."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))]


def panel_queries():
    """Each panel's queries: where it stands, PromQL with Grafana's variables."""
    return [(f"{board['title']} / {panel['title']} / {target['refId']}", target["expr"])
            for board in dashboards() for panel in board["panels"] for target in panel["targets"]]


def alerts():
    """The alerts."""
    import yaml  # in the environment of the deployment's checks only
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RULES.glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def filled_in(query):
    """A query as Grafana would send it."""
    for name, value in sorted(VARIABLES.items(), key=lambda item: -len(item[0])):
        query = query.replace(name, value)
    return query


def selectors(query):
    """The metrics that a query selects: name, matchers. Each has a brace or a range behind it, as ours are written."""
    return [(name, matchers or "") for name, matchers in
            re.findall(r"\b((?:batchmill|process)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?", query)]
