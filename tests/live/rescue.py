"""What an operator does when something went wrong: lost topics, dead letters, cancelled jobs.

`cluster(checks, cluster)` goes on with a cluster whose services were stopped, and `run(checks, folder)` needs no servers.
"""

import json
import signal
import subprocess
import time
from pathlib import Path

import laptop
import settings
import tables
from checks import Wrong, expect
from servers import listens, wait_until

# The services rebuild work from the facts after so long, instead of an hour.
RECONCILE_SECONDS = 4
DLQ = f"dlq.batchmill-splitter.{settings.JOBS_TOPIC}"
TABLE, ROWS = "movies", 58788  # what the jobs are over
# A broker that the controller takes for dead in three seconds of four.
FENCED_NOW_AND_THEN = "\nbroker.session.timeout.ms=1000\nbroker.heartbeat.interval.ms=4000\n"
GARBAGE = b"\x00\xffnot json"


# ------------------------------------------------------------------------------------------------ the cluster

def words(*rest, config):
    """A command of the operator's."""
    return [settings.binary(), *rest, "--config", config]


def restart(cluster, pace):
    """The simulator and the services again, on the same state; work is rebuilt soon, and batches take a while."""
    cluster.environment["BATCHMILL__LOOP__RECONCILE_AFTER_SECONDS"] = str(RECONCILE_SECONDS)
    start_simulator(cluster, pace)
    cluster.start_rooms()


def start_simulator(cluster, pace):
    """The simulator, in whose hands each batch stays for a while."""
    start = settings.simulator_words(settings.binary(), cluster.simulator_port, cluster.simulator_data)
    cluster.launch("simulator", [*start, "--pace", pace])
    wait_until(lambda: listens(cluster.simulator_port), "the simulator is not ready", 30,
               alive=cluster.processes["simulator"])


def ask(cluster, job, rows):
    """Submits a job over one of the public tables, in batches of so many rows; what `judge` needs to know of it."""
    source = tables.make(TABLE, "original", cluster.folder / job)
    return job, TABLE, source, cluster.submit(job, TABLE, source, "submit", rows=rows)


def wait_for_fact(cluster, job, part, seconds=120):
    """Waits until a fact or data object with this in its key exists."""
    wait_until(lambda: any(part in key for key in cluster.s3.keys(settings.key(job, ""))), f"{job} has no {part}", seconds,
               every=0.2)


def lose_topics(cluster):
    """Deletes every topic of ours, dead letters included, and makes them anew."""
    from confluent_kafka.admin import AdminClient
    admin = AdminClient({"bootstrap.servers": cluster.kafka.brokers})

    def ours():
        return [name for name in admin.list_topics(timeout=10).topics if name.startswith(("batchmill.", "dlq."))]
    lost = ours()
    expect(settings.JOBS_TOPIC in lost, f"no {settings.JOBS_TOPIC} among {lost}")
    for deleted in admin.delete_topics(lost, operation_timeout=30).values():
        deleted.result(60)
    wait_until(lambda: not ours(), "the topics are still there", 60, every=0.2)
    cluster.call(settings.topics_words(settings.binary(), cluster.config()))
    return lost


def lost_while_running(cluster):
    """All topics are lost in mid-job under living services, twice: the jobs end, and nothing is paid twice."""
    jobs = {"lost-one": 500, "lost-two": 250}
    asked = [ask(cluster, job, rows) for job, rows in jobs.items()]
    wait_for_fact(cluster, "lost-one", "3-submissions/")
    lose_topics(cluster)
    wait_for_fact(cluster, "lost-one", "4-results/")
    lose_topics(cluster)
    for job in asked:
        rows = cluster.judge(*job)
        print(f"     {job[0]}: {rows} rows, every one once, over two losses of all topics", flush=True)


def lost_before_the_split(cluster):
    """A job whose very first event is lost, with the splitter away, comes back by `batchmill reconcile`."""
    splitter = cluster.processes["splitter"]
    splitter.ask_to_stop()
    expect(splitter.stopped(30) == 0, "the splitter did not stop")
    job = ask(cluster, "lost-first", 2000)
    lose_topics(cluster)
    dry = cluster.call(words("reconcile", "--dry-run", "--job", "lost-first", config=cluster.config()))
    expect("lost-first: split 1" in dry, f"a dry run said:\n{dry}")
    said = json.loads(cluster.call(words("reconcile", "--job", "lost-first", "--json", config=cluster.config())))
    expect(said["jobs"][0]["emitted"] == [{"action": "split", "batch": None}], f"it said {said}")
    cluster.launch("splitter", settings.room_words(settings.binary(), "splitter", cluster.configs["splitter"]))
    cluster.judge(*job)
    nobody = subprocess.run([str(word) for word in words("reconcile", "--job", "nobody", config=cluster.config())],
                            env=cluster.environment, capture_output=True, text=True, timeout=60, check=False)
    expect(nobody.returncode == 4, f"an unknown job ended with {nobody.returncode}: {nobody.stderr}")


def dead_letters(cluster):
    """A poison record is listed, shown and sent back, where it dies again; what was sent back is not sent twice."""
    from confluent_kafka import Producer
    producer = Producer({"bootstrap.servers": cluster.kafka.brokers})
    producer.produce(settings.JOBS_TOPIC, GARBAGE, key=b"poison", headers=[("mark", b"\x01"), ("mark", b"\x02")])
    expect(producer.flush(30) == 0, "the poison was not taken")

    def listed():
        return json.loads(cluster.call(words("dlq", "ls", DLQ, "--json", config=cluster.config())))[0]
    wait_until(lambda: listed()["kept"] == 1, "the poison did not die", 60, every=0.5)
    first = listed()
    letter = first["letters"][0]
    expect((first["open"], letter["job"], letter["code"]) == (1, "poison", "not_json"), f"it is listed as {first}")
    shown = json.loads(cluster.call(words("dlq", "show", letter["place"], "--json", config=cluster.config())))
    expect([header["name"] for header in shown["headers"]][:2] == ["mark", "mark"], f"its headers are {shown['headers']}")
    for expected in ({"replayed": 1, "replayed_before": 0}, {"replayed": 0, "replayed_before": 1}):
        said = json.loads(cluster.call(words("dlq", "replay", letter["place"], "--json", config=cluster.config())))
        expect(said == expected, f"a replay said {said}, not {expected}")
    wait_until(lambda: listed()["kept"] == 2, "the replayed poison did not die again", 60, every=0.5)
    again = listed()
    expect(sorted(one["replayed"] for one in again["letters"]) == [False, True], f"they are listed as {again}")
    said = json.loads(cluster.call(words("dlq", "replay", DLQ, "--all", "--json", config=cluster.config())))
    expect(said["replayed"] == 1, f"a replay of all said {said}")
    values = [record for record in records(cluster, settings.JOBS_TOPIC) if record.key() == b"poison"]
    expect(len(values) == 3, f"{len(values)} records of the poison's key")
    expect(all(record.value() == GARBAGE and record.headers()[:2] == [("mark", b"\x01"), ("mark", b"\x02")]
               for record in values), "a replayed record is not the one that died")
    expect(not any(name.startswith("__batchmill.errors") for record in values for name, _ in record.headers()),
           "a replayed record has a dead letter's headers")


def fenced(cluster):
    """The broker falls out of its own cluster again and again, so that metadata lists none; then each service finds it."""
    properties = cluster.kafka.folder / "server.properties"
    plain = properties.read_text(encoding="utf-8")
    logs = [cluster.processes[room].log for room in settings.ROOMS]

    def losses():
        return [log.read_text(encoding="utf-8").count("AllBrokersDown") for log in logs]
    before = losses()
    restart_broker(cluster.kafka, plain + FENCED_NOW_AND_THEN)
    wait_until(lambda: all(now >= then + 8 for now, then in zip(losses(), before)), "the broker was never fenced", 90,
               every=0.5)
    restart_broker(cluster.kafka, plain)
    cluster.judge(*ask(cluster, "fenced", 5000))


def restart_broker(kafka, properties):
    """The broker again on its data, with these settings."""
    kafka.kill()
    (kafka.folder / "server.properties").write_text(properties, encoding="utf-8")
    kafka.restart()


def records(cluster, topic):
    """All records of a topic, by a client that is not batchmill's."""
    from confluent_kafka import Consumer, TopicPartition
    consumer = Consumer({"bootstrap.servers": cluster.kafka.brokers, "group.id": "rescue", "enable.auto.commit": False})
    try:
        found = []
        for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            consumer.assign([TopicPartition(topic, partition, low)])
            end = time.monotonic() + 30
            while low < high and time.monotonic() < end:
                record = consumer.poll(0.5)
                if record is not None and record.error() is None:
                    found.append(record)
                    low = record.offset() + 1
        return found
    finally:
        consumer.close()


def cancelled(cluster):
    """A job that is cancelled while the provider has it ends at once, with its batches cancelled there."""
    cluster.processes["simulator"].ask_to_stop()
    cluster.processes["simulator"].stopped(30)
    start_simulator(cluster, "600s")
    job = "cancelled"
    ask(cluster, job, 2000)
    wait_for_fact(cluster, job, "3-submissions/00000002-a1/0003.json")
    cluster.call(words("cancel", job, config=cluster.config()))
    fact = cluster.end(job)
    counts = fact["counts"]
    expect(counts["answered"] == 0 and counts["failed"]["cancelled"] == counts["rows"] == ROWS, f"it ended as {counts}")
    said = json.loads(cluster.call(words("cancel", job, "--json", config=cluster.config())))
    expect(said["state"] == "ended" and said["end"] == fact, f"a second cancel said {said}")


def cluster(checks, one):
    """All of it that needs servers."""
    checks.run("rescue: the services start again", restart, one, "1s")
    checks.run("rescue: every topic is lost in mid-job, twice", lost_while_running, one)
    checks.run("rescue: a job whose first event is lost", lost_before_the_split, one)
    checks.run("rescue: dead letters are listed, shown and sent back", dead_letters, one)
    checks.run("rescue: the broker is fenced, again and again", fenced, one)
    checks.run("rescue: a job is cancelled at the provider", cancelled, one)


# ------------------------------------------------------------------------------------------------ batchmill run

def interrupted(source, data, folder, pattern):
    """Starts `run`, and kills it when there is a fact like this."""
    start = settings.run_words(settings.binary(), source, tables.template(TABLE), "sim/digest", "--batch-rows", "500",
                               data=data)
    child = subprocess.Popen([str(word) for word in start], cwd=folder, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + laptop.RUN_SECONDS
        while not settings.facts(data, pattern):
            expect(child.poll() is None and time.monotonic() < end, f"it ended, or took too long, before {pattern}")
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    finally:
        child.kill()
        child.wait()
    return settings.facts(data, "0-job.json")[0].parent.name


def changed_template(folder):
    """An interrupted run owns the output: another template is refused and told how to end the first; then it works."""
    source, data = tables.make(TABLE, "original", folder), Path(folder) / "data"
    job = interrupted(source, data, folder, "4-results/*.json")
    other = settings.run_words(settings.binary(), source, "Another template for {{ title }}", "sim/digest", data=data)
    said = laptop.batchmill(other, folder, code=1)
    expect(f"batchmill cancel {job} --data {data}" in said, f"no way out in:\n{said[-2000:]}")
    cancel = [settings.binary(), "cancel", job, "--data", data]
    said = laptop.batchmill(cancel, folder)
    expect("is cancelled" in said, f"it said:\n{said[-2000:]}")
    counts = ended(data, job)["counts"]
    expect(counts["answered"] > 0 and counts["rows"] == ROWS, f"it ended as {counts}")
    expect(counts["answered"] + sum(counts["failed"].values()) == ROWS, f"rows are missing in {counts}")
    output = settings.default_output(source).read_bytes()
    said = laptop.batchmill(cancel, folder)
    expect("has ended already" in said and settings.default_output(source).read_bytes() == output, "a second cancel changed it")
    said = laptop.batchmill(other, folder, code=1)
    expect("output_exists" in said, "paid rows were to be overwritten")
    laptop.batchmill([*other, "--overwrite"], folder)
    answered = settings.default_output(source).read_bytes()
    expect(answered != output and answered.count(b"\n") > ROWS, "the new run did not write its output")


def ended(data, job):
    """A job's end in a local store."""
    return json.loads((Path(data) / "store" / "jobs" / job / "5-end.json").read_text(encoding="utf-8"))


def before_the_plan(folder):
    """A run that is cancelled before its plan spent nothing, leaves no output, and frees its place."""
    source, data = tables.make(TABLE, "original", folder), Path(folder) / "data"
    job = interrupted(source, data, folder, "0-job.json")
    if settings.facts(data, "2-plan.json"):
        raise Wrong("the kill came too late: the plan was there")
    said = laptop.batchmill([settings.binary(), "cancel", job, "--data", data], folder)
    expect("Nothing was spent" in said and not settings.default_output(source).exists(), f"it said:\n{said[-2000:]}")
    expect(laptop.paid(data) == 0, "something was paid")
    laptop.batchmill(settings.run_words(settings.binary(), source, "Another {{ title }}", "sim/digest", data=data), folder)


def unknown(folder):
    """What is not there can't be cancelled: exit code 4."""
    laptop.batchmill([settings.binary(), "cancel", "nobody", "--data", Path(folder) / "none"], folder, code=4)
    shown = laptop.written("id,title\n1,a\n")(Path(folder))
    data = Path(folder) / "data"
    laptop.batchmill(settings.run_words(settings.binary(), shown, "{{ title }}", "sim/echo", data=data), folder)
    laptop.batchmill([settings.binary(), "cancel", "nobody", "--data", data], folder, code=4)


def run(checks, folder):
    """All of it that needs no servers."""
    for name, check in (("a changed template, after a cancel", changed_template), ("cancelled before its plan", before_the_plan),
                        ("nothing to cancel", unknown)):
        place = Path(folder) / check.__name__
        place.mkdir(parents=True)
        checks.run(f"run: {name}", check, place)
