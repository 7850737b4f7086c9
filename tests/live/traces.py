"""The trace contexts in the headers of real Kafka records, and the lines of the logs that belong to them."""

import json
import re
import uuid

from checks import expect

PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]")
TOPICS = ["jobs", "batches", "retries", "submissions", "results", "status"]


def records(kafka):
    """Every record of ours on every topic: its headers as text, those of other producers left out."""
    from confluent_kafka import Consumer, TopicPartition
    consumer = Consumer({**kafka.client(), "group.id": f"traces-{uuid.uuid4()}", "enable.auto.commit": False})
    try:
        known = consumer.list_topics(timeout=10).topics
        places, left = [], 0
        for word in TOPICS:
            for number in known[f"batchmill.{word}.v1"].partitions:
                place = TopicPartition(f"batchmill.{word}.v1", number)
                low, high = consumer.get_watermark_offsets(place, timeout=10)
                place.offset = low
                places += [place] if high > low else []
                left += high - low
        consumer.assign(places)
        while left > 0:
            record = consumer.poll(10)
            # A compacted topic may have fewer records than its offsets say.
            if record is None:
                break
            expect(record.error() is None, f"reading the topics: {record.error()}")
            left -= 1
            headers = {name: value.decode() for name, value in record.headers() or []}
            if headers.get("ce_source", "").startswith("/batchmill/"):
                yield headers
    finally:
        consumer.close()


def lines(cluster, room):
    """The JSON lines of a service's log."""
    text = (cluster.folder / f"{room}.log").read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def headers_and_logs(cluster, jobs):
    """Each record says who sent it and with whom its job began; a room's log has the ids that its records have."""
    origins, senders = {}, {}
    for headers in records(cluster.kafka):
        job = headers["ce_subject"]
        if job not in jobs:
            continue
        own = PARENT.fullmatch(headers.get("traceparent", ""))
        expect(own, f"traceparent of {headers}")
        expect(PARENT.fullmatch(headers.get("ce_traceparent", "")), f"ce_traceparent of {headers}")
        origins.setdefault(job, set()).add(headers["ce_traceparent"])
        senders.setdefault(headers["ce_source"], set()).add(own[1])
    expect(set(origins) == set(jobs), f"records of {sorted(origins)} instead of {sorted(jobs)}")
    expect(all(len(of_one) == 1 for of_one in origins.values()), f"each job begins in one trace: {origins}")
    traces = [trace for of_one in senders.values() for trace in of_one]
    expect(len(traces) == len(set(traces)), "no trace is of two rooms")
    about = 0
    for room, message in [("splitter", "planned"), ("poller", "collected")]:
        for line in lines(cluster, room):
            if line.get("message") == message and line.get("job") in jobs:
                expect(line.get("trace_id") in senders[f"/batchmill/{room}"], f"{room} sent nothing of the trace of {line}")
                expect(room == "splitter" or line["batch"].endswith(f"-a{line['attempt']}"), f"{line}")
                about += 1
    expect(about > len(jobs), f"only {about} lines of the logs are about the jobs")
    print(f"     {len(traces)} traces, {about} lines of the logs", flush=True)
