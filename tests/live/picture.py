#!/usr/bin/env python3
"""Draws what backpressure does over time, from any Prometheus that looks at batchmill's services, as one SVG file:

    python3 tests/live/picture.py http://127.0.0.1:9090 --minutes 10 --out backpressure.svg
    python3 tests/live/picture.py http://127.0.0.1:9090 --from 1700000000 --to 1700000120 --select 'namespace="batch"' --out …

Exact lag by edge with its high mark, who is paused, rows, and memory by service (the label `service`, as compose/ and the chart
set it). It asks Prometheus's HTTP API and needs nothing but Python.
"""

import argparse
import sys
import time
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import promql  # noqa: E402

EDGES = ["batches", "submissions", "results"]
EDGE_NAMES = {"batches": "splitter → dispatcher", "submissions": "dispatcher → poller", "results": "poller → merger"}
ROOMS = ["splitter", "dispatcher", "poller", "merger"]
WIDTH, LEFT, RIGHT, TOP, GAP = 960, 60, 190, 74, 46
COLOURS = ["c0", "c1", "c2", "c3"]
STYLE = """
  svg { font: 12px system-ui, sans-serif; background: #fff; }
  text { fill: #222; } .quiet { fill: #666; } .title { font-weight: 600; font-size: 13px; } .head { font-weight: 600; font-size: 16px; }
  .grid { stroke: #ddd; } .axis { stroke: #999; } .mark { stroke: #888; stroke-dasharray: 3 3; }
  .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .high { fill: none; stroke-dasharray: 6 4; stroke-width: 1.2; }
  .c0 { stroke: #2f77bd; } .c1 { stroke: #d9730d; } .c2 { stroke: #2f9155; } .c3 { stroke: #9556b0; }
  rect.c0 { fill: #2f77bd; } rect.c1 { fill: #d9730d; } rect.c2 { fill: #2f9155; }
  .lane { fill: #eee; }
  @media (prefers-color-scheme: dark) {
    svg { background: #16181d; } text { fill: #e4e4e4; } .quiet { fill: #a0a0a0; } .grid { stroke: #33363d; } .axis { stroke: #777; }
    .lane { fill: #262930; } .c0 { stroke: #62a8ea; } .c1 { stroke: #f0984a; } .c2 { stroke: #5cc384; } .c3 { stroke: #c48ade; }
    rect.c0 { fill: #62a8ea; } rect.c1 { fill: #f0984a; } rect.c2 { fill: #5cc384; }
  }
"""


def steps(most):
    """Round numbers from 0 to a little over the most, about five of them."""
    size = 1
    while most / size > 5:
        size *= 2.5 if str(size)[0] == "2" else 2
    return [size * n for n in range(int(most // size) + 2)]


def number(value):
    """A short number."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


class Picture:
    """An SVG that grows downwards; all its panels have one time axis."""

    def __init__(self, start, end):
        self.start, self.end, self.y, self.parts = start, end, TOP, []

    def x(self, at):
        """Where a time is."""
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - self.start) / (self.end - self.start)

    def add(self, text):
        """One more element."""
        self.parts.append(text)

    def text(self, x, y, words, kind="", anchor="start"):
        """Words at a place."""
        self.add(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>')

    def line(self, kind, x1, y1, x2, y2):
        """A straight line."""
        self.add(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def legend(self, top, row, kind, words, dashed=False):
        """One row of a panel's legend."""
        x, y = WIDTH - RIGHT + 14, top + 12 + 18 * row
        self.line(f"{kind} {'high' if dashed else 'line'}", x, y - 4, x + 20, y - 4)
        self.text(x + 26, y, words)

    def lines(self, title, unit, height, lines, marks=()):
        """A panel of lines: (name, points). `marks`: (number of the line, value) drawn dashed across."""
        top, bottom = self.y, self.y + height
        values = [value for _, points in lines for _, value in points] + [value for _, value in marks]
        ticks = steps(max(values, default=1) or 1)
        def place(value):
            return bottom - height * value / ticks[-1]
        self.text(LEFT, top - 10, title, "title")
        for tick in ticks:
            self.line("grid", LEFT, place(tick), WIDTH - RIGHT, place(tick))
            self.text(LEFT - 8, place(tick) + 4, number(tick), "quiet", "end")
        self.text(LEFT - 8, top - 10, unit, "quiet", "end")
        for index, value in marks:
            self.line(f"{COLOURS[index]} high", LEFT, place(value), WIDTH - RIGHT, place(value))
        for index, (name, points) in enumerate(lines):
            path = " ".join(f"{self.x(at):.1f},{place(value):.1f}" for at, value in points)
            self.add(f'<polyline class="{COLOURS[index]} line" points="{path}"/>')
            self.legend(top, index, COLOURS[index], name)
        if marks:
            self.legend(top, len(lines), "axis", "high mark", dashed=True)
        self.y = bottom + GAP

    def lanes(self, title, lanes):
        """A panel of bars where a value is 1: (name, points)."""
        self.text(LEFT, self.y - 10, title, "title")
        for index, (name, points) in enumerate(lanes):
            top = self.y + 20 * index
            self.add(f'<rect class="lane" x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="14"/>')
            for (at, value), (after, _) in zip(points, [*points[1:], (self.end, 0)]):
                if value:
                    wide = max(1.0, self.x(min(after, at + 5)) - self.x(at))
                    self.add(f'<rect class="{COLOURS[index]}" stroke="none" x="{self.x(at):.1f}" y="{top}" width="{wide:.1f}" height="14"/>')
            self.text(WIDTH - RIGHT + 14, top + 11, name)
        self.y += 20 * len(lanes) + GAP

    def close(self, title, moments):
        """The time axis, the moments (time, words), and all of it as text."""
        bottom = self.y - GAP + 8
        self.text(LEFT, 24, title, "head")
        length = self.end - self.start
        for tick in steps(length):
            if tick <= length:
                self.line("axis", self.x(self.start + tick), bottom, self.x(self.start + tick), bottom + 5)
                self.text(self.x(self.start + tick), bottom + 19, f"{tick:.0f} s", "quiet", "middle")
        self.line("axis", LEFT, bottom, WIDTH - RIGHT, bottom)
        for place, (at, words) in enumerate(moments):
            self.line("mark", self.x(at), TOP - 22, self.x(at), bottom)
            # The words of the first and of the last moment are right of their line, those between left of it.
            between = 0 < place < len(moments) - 1
            self.text(self.x(at) + (-4 if between else 4), 44, words, "quiet", "end" if between else "start")
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 34:.0f}" width="{WIDTH}" role="img" '
                f'aria-label="{escape(title)}">\n<style>{STYLE}</style>')
        return "\n".join([head, *self.parts, "</svg>", ""])


def draw(url, start, end, out, select=(), moments=(), title="Backpressure: a slow provider"):
    """Asks Prometheus and writes the file."""
    def found(query, label, names):
        series = promql.series(url, query % ",".join(select), start, end)
        by_name = {labels.get(label, ""): points for labels, points in series}
        return [(name, next((points for value, points in by_name.items() if name in value), [])) for name in names]

    picture = Picture(start, end)
    lag = found("max by (topic) (batchmill_loop_lag_events{%s})", "topic", [f".{edge}." for edge in EDGES])
    high = found("max by (edge) (batchmill_gate_high_events{%s})", "edge", EDGES)
    marks = [(index, points[-1][1]) for index, (_, points) in enumerate(high) if points]
    picture.lines("Exact lag of the room behind each edge", "events", 150,
                  [(EDGE_NAMES[edge], points) for edge, (_, points) in zip(EDGES, lag)], marks)
    closed = found("max by (edge) (batchmill_gate_closed{%s})", "edge", EDGES)
    picture.lanes("Paused: the room before the edge holds back",
                  [(f"{EDGE_NAMES[edge].split()[0]} waits", points) for edge, (_, points) in zip(EDGES, closed)])
    rows = found("sum by (outcome) (batchmill_poller_rows_total{%s})", "outcome", ["answered", "retried"])
    picture.lines("Rows so far", "rows", 110, [("answered", rows[0][1]), ("to be tried again", rows[1][1])])
    memory = found("max by (service) (process_resident_memory_bytes{%s})", "service", ROOMS)
    picture.lines("Resident memory of each process", "MB", 110,
                  [(room, [(at, value / 1e6) for at, value in points]) for room, points in memory])
    Path(out).write_text(picture.close(title, moments), encoding="utf-8")


def main():
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("url", help="Prometheus, such as http://127.0.0.1:9090")
    arguments.add_argument("--minutes", type=float, default=10, help="the last so many (10)")
    arguments.add_argument("--from", dest="start", type=float, help="unix time")
    arguments.add_argument("--to", dest="end", type=float, help="unix time")
    arguments.add_argument("--select", action="append", default=[], help='a matcher for every query, as in namespace="batch"')
    arguments.add_argument("--title", default="Backpressure")
    arguments.add_argument("--out", required=True, help="the SVG file")
    options = arguments.parse_args()
    end = options.end or time.time()
    draw(options.url.rstrip("/"), options.start or end - 60 * options.minutes, end, options.out, options.select, title=options.title)


if __name__ == "__main__":
    main()
