#!/usr/bin/env python3
"""Writes the dashboards (`dashboards/*.json`, Grafana's classic JSON) from the lists below.

    compose/grafana/make.py            writes them
    compose/grafana/make.py --check    says whether the committed ones are these

A panel is (title, what it says, unit, kind, queries), a query (PromQL, legend). `SELECT` in a query stands for the
matchers of the dashboard's variables. `tests/compose/dashboards.py` holds them to the rules, and `tests/live/observe.py` asks
every query on live data.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SELECT = 'job=~"$job",instance=~"$instance"'
PROVIDER = SELECT + ',provider=~"$provider"'
RATE = "$__rate_interval"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, HEIGHT = 24, 8


def rate(metric, select=SELECT, by="", window=RATE):
    """Events a second."""
    inner = f"sum by ({by}) " if by else "sum "
    return f"{inner}(rate({metric}{{{select}}}[{window}]))"


def increase(metric, select=SELECT, by="", window="$__range"):
    """Events of the shown time."""
    inner = f"sum by ({by}) " if by else "sum "
    return f"{inner}(increase({metric}{{{select}}}[{window}]))"


def quantiles(metric, select=SELECT, by=""):
    """Median and 95th percentile of a histogram in seconds."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return [(f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{select}}}[{RATE}])))", f"{legend}{name}")
            for name, share in (("p50", 0.5), ("p95", 0.95))]


OVERVIEW = ("batchmill-overview", "batchmill: overview", "Whether jobs get done: rows, jobs, what waits and what goes wrong.", [
    ("Rows answered", "Rows of collected batches that the provider answered, a second.", "rowsps", "stat",
     [(rate("batchmill_poller_rows_total", SELECT + ',outcome="answered"'), "answered")]),
    ("Jobs ended", "Jobs that ended in the shown time.", "short", "stat",
     [(increase("batchmill_merger_jobs_total"), "jobs")]),
    ("Batches at the provider", "Batches that were submitted and are not collected yet.", "short", "stat",
     [(f"sum (batchmill_poller_batches_at_provider{{{SELECT}}})", "batches")]),
    ("Oldest batch", "Age of the oldest batch at any provider. A provider's window is 24 hours; the alarm comes at 26.", "s", "stat",
     [(f"max (batchmill_poller_oldest_batch_age_seconds{{{SELECT}}})", "age")]),
    ("Dead letters", "Records that were put aside in the shown time, since nothing can be made of them.", "short", "stat",
     [(increase("batchmill_loop_dead_letters_total"), "records")]),
    ("Services up", "Processes that Prometheus reaches, by room.", "short", "stat",
     [('sum by (service) (up{job=~"$job",instance=~"$instance"})', "{{service}}")]),
    ("Rows by outcome", "Rows of collected batch attempts. A retried row counts again with each attempt.", "rowsps", "timeseries",
     [(rate("batchmill_poller_rows_total", by="outcome"), "{{outcome}}")]),
    ("Jobs by outcome", "Jobs that ended: all rows answered, some failed (partial), or refused before anything was spent.", "short",
     "timeseries", [(increase("batchmill_merger_jobs_total", by="outcome", window=RATE), "{{outcome}}")]),
    ("Rows that failed for good, by kind", "What is in the files of failed rows.", "rowsps", "timeseries",
     [(rate("batchmill_poller_failed_rows_total", by="kind"), "{{kind}}")]),
    ("Events that wait, by room", "Exact lag: events that a room has not finished. The poller's are batches at the provider.", "short",
     "timeseries", [(f"max by (room, topic) (batchmill_loop_lag_events{{{SELECT}}})", "{{room}} {{topic}}")]),
    ("Time of a job", "From taking a job up to its end.", "s", "timeseries",
     quantiles("batchmill_merger_job_duration_seconds")),
    ("Rows planned and rows ended", "Conservation: both lines rise by the same. A gap means that a merge was stopped.", "short", "timeseries",
     [(increase("batchmill_merger_planned_rows_total"), "planned"), (increase("batchmill_merger_rows_total"), "ended")]),
    ("Things that must stay at zero", "Contradictions between facts, handlers that panicked, fatal errors of the bus.", "short", "timeseries",
     [(increase("batchmill_merger_conservation_mismatches_total"), "conservation mismatches"),
      (increase("batchmill_loop_events_total", SELECT + ',outcome="panicked"'), "panics"),
      (increase("batchmill_bus_errors_total", SELECT + ',kind="fatal"'), "fatal bus errors")]),
    ("Versions", "Which builds run.", "short", "timeseries",
     [(f"count by (version) (batchmill_build_info{{{SELECT}}})", "{{version}}")]),
])

ROOMS = ("batchmill-rooms", "batchmill: jobs and rooms", "What each of the four rooms does, and how long it takes.", [
    ("Jobs planned and refused", "Jobs that the splitter took up.", "short", "timeseries",
     [(increase("batchmill_splitter_jobs_total", by="outcome", window=RATE), "{{outcome}}")]),
    ("Rows split", "Rows that were read and placed in a batch.", "rowsps", "timeseries",
     [(rate("batchmill_splitter_rows_total", by="outcome"), "{{outcome}}")]),
    ("Time to plan", "The whole input read, checked and stored as batches.", "s", "timeseries",
     quantiles("batchmill_splitter_plan_duration_seconds")),
    ("Batches dispatched", "Batch attempts by how their submission ended.", "short", "timeseries",
     [(increase("batchmill_dispatcher_batches_total", by="outcome", window=RATE), "{{outcome}}")]),
    ("Time to submit", "From the claim to the provider's acceptance: fence, encoding, upload and create.", "s", "timeseries",
     quantiles("batchmill_dispatcher_submit_duration_seconds")),
    ("Batches collected", "Batch attempts by how they ended at the provider.", "short", "timeseries",
     [(increase("batchmill_poller_batches_total", by="status", window=RATE), "{{status}}")]),
    ("Time to collect", "Files downloaded, each row accounted for, results stored.", "s", "timeseries",
     quantiles("batchmill_poller_collect_duration_seconds")),
    ("Time to merge", "All batches of a job zipped and written to its output.", "s", "timeseries",
     quantiles("batchmill_merger_merge_duration_seconds")),
    ("Events handled", "Events by how their handling ended. Later ones come again.", "cps", "timeseries",
     [(rate("batchmill_loop_events_total", by="room, outcome"), "{{room}} {{outcome}}")]),
    ("Handlers that run", "Handlers at work, over all processes of a room.", "short", "timeseries",
     [(f"sum by (room) (batchmill_loop_running{{{SELECT}}})", "{{room}}")]),
    ("Time in a handler", "Waits for room at the stage after it included.", "s", "timeseries",
     quantiles("batchmill_loop_handler_duration_seconds", by="room")),
    ("Events taken and not finished", "What a process has in its hands, timers included.", "short", "timeseries",
     [(f"sum by (room) (batchmill_loop_unfinished{{{SELECT}}})", "{{room}}")]),
    ("Memory", "Resident memory of each process.", "bytes", "timeseries",
     [(f"process_resident_memory_bytes{{{SELECT}}}", "{{service}} {{instance}}")]),
    ("CPU", "Cores in use by each process.", "short", "timeseries",
     [(f"sum by (service, instance) (rate(process_cpu_seconds_total{{{SELECT}}}[{RATE}]))", "{{service}} {{instance}}")]),
    ("Store: facts put", "Conditional puts by how they ended. Lost ones met another's fact; unsure ones were read back.", "cps", "timeseries",
     [(rate("batchmill_store_put_once_total", by="outcome"), "{{outcome}}")]),
    ("Store: errors", "Calls of the object store that failed. They are tried again.", "cps", "timeseries",
     [(rate("batchmill_store_errors_total", by="operation, kind"), "{{operation}} {{kind}}")]),
])

PROVIDERS = ("batchmill-providers", "batchmill: providers and cost", "What the providers do with the batches, what is used there and what it costs.", [
    ("Batches at the provider", "Batches that were submitted and are not collected yet.", "short", "timeseries",
     [(f"sum by (provider) (batchmill_poller_batches_at_provider{{{PROVIDER}}})", "{{provider}}")]),
    ("Oldest batch", "Age of the oldest of them.", "s", "timeseries",
     [(f"max by (provider) (batchmill_poller_oldest_batch_age_seconds{{{PROVIDER}}})", "{{provider}}")]),
    ("Turnaround of a batch", "From submission to collection.", "s", "timeseries",
     quantiles("batchmill_poller_batch_turnaround_seconds", PROVIDER, "provider")),
    ("Batches by their end", "How batch attempts ended.", "short", "timeseries",
     [(increase("batchmill_poller_batches_total", PROVIDER, "provider, status", RATE), "{{provider}} {{status}}")]),
    ("Calls", "Calls of the provider by outcome.", "reqps", "timeseries",
     [(rate("batchmill_provider_request_duration_seconds_count", PROVIDER, "provider, outcome"), "{{provider}} {{outcome}}")]),
    ("Calls that went wrong", "Share of calls that failed or were not let in.", "percentunit", "timeseries",
     [(rate("batchmill_provider_request_duration_seconds_count", PROVIDER + ',outcome=~"failed|unauthorized"', "provider")
       + " / " + rate("batchmill_provider_request_duration_seconds_count", PROVIDER, "provider"), "{{provider}}")]),
    ("Time of a call, 95th percentile", "By operation; uploads and downloads to their last byte.", "s", "timeseries",
     [quantiles("batchmill_provider_request_duration_seconds", PROVIDER, "operation")[1]]),
    ("Looks at batches", "How often the poller asks, on its own or in lists.", "reqps", "timeseries",
     [(rate("batchmill_poller_looks_total", PROVIDER, "provider"), "{{provider}}")]),
    ("Rows tried again, by kind", "Rows that failed and go into the next attempt.", "rowsps", "timeseries",
     [(rate("batchmill_poller_retried_rows_total", PROVIDER, "kind"), "{{kind}}")]),
    ("Rows that failed for good, by kind", "Rows that are not tried again.", "rowsps", "timeseries",
     [(rate("batchmill_poller_failed_rows_total", PROVIDER, "kind"), "{{kind}}")]),
    ("Tokens", "By the provider's own figures. Kinds don't overlap.", "cps", "timeseries",
     [(rate("batchmill_tokens_total", PROVIDER, "kind"), "{{kind}}")]),
    ("Tokens by model", "Tokens of the shown time.", "short", "timeseries",
     [(increase("batchmill_tokens_total", PROVIDER, "provider, model"), "{{provider}}/{{model}}")]),
    ("Tokens by team", "Tokens of the shown time.", "short", "timeseries",
     [(increase("batchmill_tokens_total", PROVIDER, "team"), "{{team}}")]),
    ("Cost an hour", "At the present rate, by the prices that the jobs' plans froze.", "currencyUSD", "timeseries",
     [("3600 * " + rate("batchmill_cost_usd_total", PROVIDER, "provider"), "{{provider}}")]),
    ("Cost a day and its budget", "At the present rate. The budget is a setting: the alerts compare with it, and nothing stops at it.",
     "currencyUSD", "timeseries", [("86400 * " + rate("batchmill_cost_usd_total"), "a day at this rate"),
                                   (f"max (batchmill_cost_budget_usd{{{SELECT}}})", "budget of a day")]),
    ("Cost by model", "Of the shown time.", "currencyUSD", "timeseries",
     [(increase("batchmill_cost_usd_total", PROVIDER, "provider, model"), "{{provider}}/{{model}}")]),
    ("Cost by team", "Of the shown time.", "currencyUSD", "timeseries",
     [(increase("batchmill_cost_usd_total", PROVIDER, "team"), "{{team}}")]),
    ("Cost of 1,000 answered rows", "Of the shown time: what was paid for rows that failed or were tried again is in it.", "currencyUSD",
     "timeseries", [("1000 * " + increase("batchmill_cost_usd_total", PROVIDER, "provider") + " / "
                     + increase("batchmill_poller_rows_total", PROVIDER + ',outcome="answered"', "provider"), "{{provider}}")]),
    ("Tokens without a price", "Tokens of models that the list of prices lacks, and answers whose lines told no usage: their cost is unknown.",
     "short", "timeseries",
     [(increase("batchmill_cost_unpriced_tokens_total", PROVIDER, "provider, model"), "{{provider}}/{{model}} tokens"),
      (increase("batchmill_cost_unmetered_rows_total", PROVIDER, "provider, model"), "{{provider}}/{{model}} answers")]),
    ("Usage that does not add up", "Batches whose usage by the provider's own figure is not the sum over their rows.", "short", "timeseries",
     [(increase("batchmill_cost_usage_mismatches_total", PROVIDER, "provider, model", RATE), "{{provider}}/{{model}}")]),
    ("Creates whose answer was lost", "The batch may run: nothing more is sent for it until the fence has found out.", "short", "timeseries",
     [(increase("batchmill_dispatcher_ambiguous_creates_total", PROVIDER, "provider", RATE), "{{provider}}")]),
    ("What the fences found", "Looks for batches whose create has no recorded outcome.", "short", "timeseries",
     [(increase("batchmill_dispatcher_fences_total", PROVIDER, "outcome", RATE), "{{outcome}}")]),
    ("Lines that are no row's", "Unknown custom ids, and one more line for a row.", "short", "timeseries",
     [(increase("batchmill_poller_stray_lines_total", PROVIDER, "reason", RATE), "{{reason}}")]),
])

KAFKA = ("batchmill-kafka", "batchmill: Kafka, lag and dead letters", "What waits between the rooms, who holds back, and what was put aside.", [
    ("Exact lag", "Events that the whole group has not finished.", "short", "timeseries",
     [(f"max by (group, topic) (batchmill_loop_lag_events{{{SELECT}}})", "{{group}} {{topic}}")]),
    ("Raw lag", "As Kafka's own tools count it: also what is finished behind an open event.", "short", "timeseries",
     [(f"max by (group, topic) (batchmill_loop_raw_lag_events{{{SELECT}}})", "{{group}} {{topic}}")]),
    ("Gates: lag and marks", "The lag of the stage after an edge as the stage before it sees it, with the marks at which it holds back.", "short",
     "timeseries", [(f"max by (edge) (batchmill_gate_lag_events{{{SELECT}}})", "{{edge}} lag"),
                    (f"max by (edge) (batchmill_gate_high_events{{{SELECT}}})", "{{edge}} high"),
                    (f"max by (edge) (batchmill_gate_low_events{{{SELECT}}})", "{{edge}} low")]),
    ("Gates: closed", "Processes that hold back what they would emit.", "short", "timeseries",
     [(f"sum by (edge) (batchmill_gate_closed{{{SELECT}}})", "{{edge}}")]),
    ("Gates: emits that wait", "Emits that wait for room at the stage after the edge.", "short", "timeseries",
     [(f"sum by (edge) (batchmill_gate_waiting_emits{{{SELECT}}})", "{{edge}}")]),
    ("Topics that are paused", "Processes that take no more from a topic, since too much is open in them.", "short", "timeseries",
     [(f"sum by (room, topic) (batchmill_loop_paused{{{SELECT}}})", "{{room}} {{topic}}")]),
    ("Events emitted", "Events emitted and acknowledged, by kind.", "cps", "timeseries",
     [(rate("batchmill_loop_emitted_total", by="kind"), "{{kind}}")]),
    ("Events handled", "Events by how their handling ended.", "cps", "timeseries",
     [(rate("batchmill_loop_events_total", by="topic, outcome"), "{{topic}} {{outcome}}")]),
    ("Dead letters, by reason", "`batchmill dlq ls` lists them, `batchmill dlq replay` sends them back.", "short", "timeseries",
     [(increase("batchmill_loop_dead_letters_total", by="room, reason", window=RATE), "{{room}} {{reason}}")]),
    ("Bus errors", "Errors of Kafka's client. Each is tried again, but for fatal ones, which end the process.", "cps", "timeseries",
     [(rate("batchmill_bus_errors_total", by="operation, kind"), "{{operation}} {{kind}}")]),
])

DASHBOARDS = {"overview": OVERVIEW, "rooms": ROOMS, "providers": PROVIDERS, "kafka": KAFKA}


def target(place, query, legend, instant):
    """One query of a panel."""
    return {"datasource": DATASOURCE, "editorMode": "code", "expr": query, "instant": instant, "legendFormat": legend,
            "range": not instant, "refId": chr(ord("A") + place)}


def panel(number, place, title, text, unit, kind, queries):
    """One panel in Grafana's JSON."""
    stat = kind == "stat"
    made = {
        "id": number, "title": title, "description": text, "type": kind, "datasource": DATASOURCE, "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [target(at, query, legend, False) for at, (query, legend) in enumerate(queries)],
    }
    if stat:
        made["options"] = {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]},
                           "textMode": "auto"}
    else:
        made["fieldConfig"]["defaults"]["custom"] = {"drawStyle": "line", "fillOpacity": 10, "lineWidth": 1,
                                                     "showPoints": "never", "spanNulls": False}
        made["options"] = {"legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom"},
                           "tooltip": {"mode": "multi", "sort": "desc"}}
    return made


def laid_out(panels):
    """Stats in one row of six, the rest two in a row."""
    made, x, y = [], 0, 0
    for number, (title, text, unit, kind, queries) in enumerate(panels, start=1):
        width, height = (4, 4) if kind == "stat" else (12, HEIGHT)
        if x + width > COLUMNS:
            x, y = 0, y + made[-1]["gridPos"]["h"]
        made.append(panel(number, {"x": x, "y": y, "w": width, "h": height}, title, text, unit, kind, queries))
        x += width
    return made


def variable(name, label, metric):
    """A variable that lists the values of a label."""
    query = f"label_values({metric}, {name})"
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "definition": query,
            "query": {"query": query, "refId": "variable"}, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
            "allValue": ".+", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}


def dashboard(uid, title, text, panels):
    """One dashboard in Grafana's JSON."""
    variables = [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1,
                  "current": {}},
                 variable("job", "Job", "batchmill_build_info"), variable("instance", "Instance", 'batchmill_build_info{job=~"$job"}')]
    if any("$provider" in query for *_, queries in panels for query, _ in queries):
        variables.append(variable("provider", "Provider", 'batchmill_poller_looks_total{job=~"$job"}'))
    return {"uid": uid, "title": title, "description": text, "tags": ["batchmill"], "editable": False, "graphTooltip": 1,
            "links": [{"asDropdown": False, "includeVars": True, "keepTime": True, "tags": ["batchmill"], "title": "batchmill",
                       "type": "dashboards"}],
            "panels": laid_out(panels), "refresh": "30s", "schemaVersion": 39, "templating": {"list": variables},
            "time": {"from": "now-6h", "to": "now"}, "timezone": "browser", "version": 1}


def main():
    """The command."""
    stale = []
    for name, made in DASHBOARDS.items():
        path, text = HERE / "dashboards" / f"{name}.json", json.dumps(dashboard(*made), indent=2, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)}: not what compose/grafana/make.py writes: run it")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
