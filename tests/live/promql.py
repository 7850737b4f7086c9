"""Prometheus's HTTP API."""

import json
import urllib.parse
import urllib.request


def ask(url, path, **parameters):
    """What it answers."""
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as reply:
        return json.load(reply)["data"]


def series(url, query, start, end):
    """A range query: labels and points (time, value) of each series that it finds; a point each second, or a thousand in all."""
    step = max(1, (end - start) / 1000)
    found = ask(url, "query_range", query=query, start=start, end=end, step=step)["result"]
    return [(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in found]
