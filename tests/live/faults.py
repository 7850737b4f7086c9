"""What goes wrong in the campaign: the provider's lies, what is done to the machines, and the crash points of the rooms."""

import settings

# What the provider does wrong: name → rule. Every one of them leaves a way to an answer for each row.
LIES = {
    "create_dropped_before": {"fault": "create_dropped_before", "when": {"chance": 0.25}},
    "create_dropped_after": {"fault": "create_dropped_after", "when": {"chance": 0.25}},
    "create_failed": {"fault": "create_failed", "when": {"chance": 0.25}},
    "create_failed_accepted": {"fault": "create_failed_accepted", "when": {"chance": 0.25}},
    "create_limited": {"fault": "create_limited", "retry_after": 0.3, "when": {"chance": 0.25}},
    "create_late": {"fault": "create_late", "after_ms": 700, "when": {"chance": 0.2}},
    "upload_refused": {"fault": "upload_refused", "status": 503, "when": {"chance": 0.25}},
    "upload_dropped": {"fault": "upload_dropped", "after_bytes": 500, "when": {"chance": 0.25}},
    "file_not_found": {"fault": "file_not_found", "requests": 2, "when": {"chance": 0.25}},
    "delete_failed": {"fault": "delete_failed", "when": {"chance": 0.5}},
    "download_cut": {"fault": "download_cut", "after_bytes": 700, "when": {"chance": 0.3}},
    "list_fails": {"fault": "request_fails", "on": "list_batches", "status": 500, "when": {"chance": 0.4}},
    "look_fails": {"fault": "request_fails", "on": "get_batch", "status": 502, "when": {"chance": 0.3}},
    "batch_not_found": {"fault": "batch_not_found", "requests": 2, "when": {"chance": 0.3}},
    "batch_failed": {"fault": "batch_failed", "when": {"chance": 0.15}},
    "batch_stuck": {"fault": "batch_stuck", "for_ms": 2500, "when": {"chance": 0.2}},
    "batch_expired": {"fault": "batch_expired", "percent": 50, "when": {"chance": 0.15}},
    "file_ids_late": {"fault": "file_ids_late", "looks": 2, "when": {"chance": 0.3}},
    "counts_lie": {"fault": "counts_lie", "total": 1, "when": {"chance": 0.3}},
    "unknown_status": {"fault": "unknown_status", "looks": 2, "when": {"chance": 0.2}},
    "row_missing": {"fault": "row_missing", "when": {"chance": 0.3}, "rows": {"chance": 0.05}},
    "row_duplicate": {"fault": "row_duplicate", "when": {"chance": 0.3}, "rows": {"chance": 0.1}},
    "row_unknown_id": {"fault": "row_unknown_id", "keep": True, "when": {"chance": 0.3}, "rows": {"chance": 0.05}},
    "row_malformed": {"fault": "row_malformed", "when": {"chance": 0.3}, "rows": {"chance": 0.05}},
    "row_error_500": {"fault": "row_error", "when": {"chance": 0.3}, "rows": {"chance": 0.1}},
    "row_error_429": {"fault": "row_error", "status": 429, "code": "rate_limit_exceeded", "when": {"chance": 0.3},
                      "rows": {"chance": 0.1}},
}
SERVERS = ["broker killed", "broker stopped", "S3 killed", "provider killed"]
# Longer than the controller takes a broker for alive: when it goes on, it is no member of its own cluster for a moment.
BROKER_SLEEP = (9.5, 13)
DEEDS = ["killed", "stopped", "killed at a point", "stopped at a point", "terminated"]
MACHINES = SERVERS + [f"{room} {deed}" for room in settings.ROOMS for deed in DEEDS]
# Points of each room that any busy process passes often; the crash matrix walks all of them.
POINTS = {
    "splitter": ["splitter.taken", "splitter.stored", "splitter.read", "splitter.planned", "loop.produced"],
    "dispatcher": ["dispatcher.claimed", "dispatcher.uploaded", "dispatcher.recorded", "dispatcher.created",
                   "dispatcher.submitted", "put_once.put"],
    "poller": ["poller.downloaded", "poller.stored", "poller.collected", "loop.produced", "loop.handled"],
    "merger": ["merger.written", "merger.merged", "merger.ended", "merger.told", "put_once.putting"],
}
