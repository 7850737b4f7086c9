"""Services that die: processes of each room with a crash point or without, and what must hold after their deaths.

A fleet has topics, consumer groups, a store prefix and a simulator of its own, so that several live on one Kafka and
one S3. What it judges it works out from the input, the facts and the provider's ledger; no code of batchmill's is asked.
"""

import hashlib
import json
import os
import re
import signal
import time
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path
from string import Template

import oracle
import settings
from checks import Wrong, expect
from servers import Process, Unready, free_port, listens, wait_until

# Topic: the rooms that read it.
TOPICS = {"jobs": ["splitter"], "batches": ["dispatcher"], "retries": ["dispatcher"], "submissions": ["poller"],
          "results": ["merger"], "status": []}
SESSION_MS = 2000
READY_SECONDS = 60


class Service(Process):
    """One process of a room."""

    def __init__(self, room, name, words, log, env, port):
        self.room, self.port = room, port
        self.began = log.stat().st_size if log.exists() else 0
        super().__init__(name, words, log, env=env, cwd=log.parent)

    def said(self, since=None):
        """The events of its log since a place in it (by default: since it was started)."""
        with open(self.log, "rb") as lines:
            lines.seek(self.began if since is None else since)
            for line in lines:
                if line.startswith(b"{") and line.endswith(b"\n"):
                    yield json.loads(line)

    def partitions(self, since=None):
        """How many partitions were assigned and not revoked since a place in its log, and whether any were assigned."""
        count, assigned = 0, False
        for event in self.said(since):
            fields = event.get("fields", event)
            if fields.get("message") == "partitions assigned":
                count, assigned = count + int(fields["partitions"]), assigned or int(fields["partitions"]) > 0
            elif fields.get("message") == "partitions revoked":
                count -= int(fields["partitions"])
        return count, assigned

    def metric(self, name, timeout=2):
        """The sum of a metric over its labels; None when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=timeout) as reply:
                text = reply.read().decode()
        except OSError:
            return None
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))

    def state(self):
        """The letter of its state in /proc: `T` is stopped. None when it has ended."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return None

    def stop(self):
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self):
        """SIGCONT."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGCONT)

    def is_idle(self):
        """Whether no handler runs and no event is unfinished."""
        return self.metric("batchmill_loop_running") == 0 and self.metric("batchmill_loop_unfinished") == 0


class Job:
    """A job that was asked for: its id, the local input, the template, the output's key."""

    def __init__(self, name, source, template, output, rows):
        self.name, self.source, self.template, self.output, self.rows = name, source, template, output, rows
        self.asked = time.monotonic()


class Fleet:
    """Topics, a store prefix, a simulator, and the processes."""

    partitions = 2  # of each topic: many fleets share one small broker

    def __init__(self, name, folder, kafka, s3):
        self.name, self.folder, self.kafka, self.s3 = name, Path(folder) / name, kafka, s3
        self.folder.mkdir(parents=True)
        self.environment = settings.environment(s3)
        self.simulator_port, self.simulator_data = free_port(), self.folder / "simulator-data"
        self.simulator, self.services, self.started, self._admin = None, [], Counter(), None

    # ------------------------------------------------------------------------------------------- processes

    def topics(self):
        """Creates the topics."""
        from confluent_kafka.admin import NewTopic
        wanted = [NewTopic(self.topic(topic), self.partitions, 1) for topic in TOPICS]
        for done in self.admin().create_topics(wanted).values():
            done.result(60)

    def admin(self):
        """Kafka's administration; one client for the fleet's life."""
        from confluent_kafka.admin import AdminClient
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.kafka.brokers})
        return self._admin

    def lag(self, room):
        """How many records a room has not finished and committed."""
        from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
        from confluent_kafka.admin import OffsetSpec
        places = [TopicPartition(self.topic(topic), partition) for topic, readers in TOPICS.items() if room in readers
                  for partition in range(self.partitions)]
        group = ConsumerGroupTopicPartitions(f"{self.name}-{room}", places)
        ends = self.admin().list_offsets({place: OffsetSpec.latest() for place in places})
        committed = self.admin().list_consumer_group_offsets([group])[group.group_id].result(20).topic_partitions
        ends = {(place.topic, place.partition): end.result(20).offset for place, end in ends.items()}
        return sum(ends[place.topic, place.partition] - max(0, place.offset) for place in committed)

    def quiet(self, seconds=60):
        """Waits until every room has finished and committed all that was sent to it."""
        from confluent_kafka import KafkaException

        def at_rest():
            try:
                return not any(self.lag(room) for room in settings.ROOMS)
            except KafkaException:  # a broker that was starved has new leaders for a moment
                return False
        wait_until(at_rest, f"{self.name} does not come to rest", seconds)

    def topic(self, name):
        """A topic's whole name."""
        return f"{self.name}.{name}.v1"

    def start_simulator(self):
        """Starts the simulator, at first or again on the same data and port."""
        words = settings.simulator_words(settings.binary(), self.simulator_port, self.simulator_data)
        self.simulator = Process("simulator", words, self.folder / "simulator.log", self.environment, self.folder)
        wait_until(lambda: listens(self.simulator_port), "the simulator is not ready", 30, alive=self.simulator)

    def faults(self, script):
        """Gives the simulator another fault script."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.simulator_port}/faults", method="PUT",
                                         data=json.dumps(script).encode(), headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            expect(reply.status in (200, 204), f"PUT /faults was answered with {reply.status}")

    def start(self, room, crash_at=None, reconcile_seconds=3600, flags=()):
        """Starts a process of a room, with a crash point or without, with more flags or without. It is not waited for."""
        self.started[room] += 1
        name, port = f"{room}-{self.started[room]}", free_port()
        template = Template((Path(__file__).parent / "fleet.toml.in").read_text(encoding="utf-8"))
        config = self.folder / f"{name}.toml"
        config.write_text(template.substitute(
            brokers=self.kafka.brokers, prefix=self.name, session_ms=SESSION_MS, reconcile=reconcile_seconds,
            store=f"s3://{self.s3.bucket}/{self.name}", bucket=self.s3.bucket, endpoint=self.s3.endpoint,
            simulator=f"http://127.0.0.1:{self.simulator_port}", admin_port=port,
            scratch=self.folder / f"scratch-{name}"), encoding="utf-8")
        env = {**self.environment, "BATCHMILL_CRASH_AT": crash_at} if crash_at else self.environment
        service = Service(room, name, [*settings.room_words(settings.binary(), room, config), *flags],
                          self.folder / f"{name}.log", env, port)
        self.services.append(service)
        return service

    def partitions_of(self, room):
        """How many partitions a room reads."""
        return self.partitions * sum(room in readers for readers in TOPICS.values())

    def joined(self, service, since=None, all_of_them=True):
        """Waits until a process has its partitions: all that its room reads, or some."""
        def there():
            count, assigned = service.partitions(since)
            return assigned and (not all_of_them or count >= self.partitions_of(service.room))
        try:
            wait_until(there, f"{service.name} has no partitions", READY_SECONDS, alive=service)
        except Unready as error:
            raise Wrong(f"{error}\n{service.tail(1500)}") from None

    def forget(self, service):
        """The process has ended, or is ended now."""
        service.kill()
        if service in self.services:
            self.services.remove(service)

    def living(self, *but):
        """Raises when a process has ended that should not have."""
        for service in self.services:
            expect(service in but or service.poll() is None,
                   f"{service.name} ended with {service.returncode}:\n{service.tail()}")

    def close(self):
        """Kills what still runs; a stopped process too."""
        for service in list(self.services):
            self.forget(service)
        if self.simulator is not None:
            self.simulator.kill()

    # ------------------------------------------------------------------------------------------- jobs

    def ask(self, job, spec):
        """Asks for a job with a Kafka client that is not batchmill's."""
        from confluent_kafka import Producer
        headers, body = settings.event("binary", spec)
        producer = Producer({"bootstrap.servers": self.kafka.brokers, "acks": "all", "enable.idempotence": True})
        failures = []
        producer.produce(self.topic("jobs"), body, key=job.name.encode(), headers=headers,
                         on_delivery=lambda error, _: failures.append(error) if error else None)
        expect(producer.flush(60) == 0 and not failures, f"{job.name} could not be asked for: {failures}")
        job.asked = time.monotonic()

    def spec(self, job, source_key, rows_in_batch, retry=None):
        """A job's specification."""
        made = settings.spec(job.name, source_key, job.output, job.template, rows=rows_in_batch)
        return {**made, "retry": retry} if retry else made

    def key(self, job, name):
        """The key of one of a job's objects."""
        return f"{self.name}/jobs/{job.name}/{name}"

    def end(self, job):
        """The job's last fact, or None."""
        fact = self.s3.read(self.key(job, "5-end.json"))
        return None if fact is None else json.loads(fact)

    def ended(self, job, seconds, *but):
        """Waits for the job's last fact. Other processes than those of `but` may not end meanwhile."""
        limit = time.monotonic() + seconds
        while (fact := self.end(job)) is None:
            self.living(*but)
            if time.monotonic() > limit:
                last = "\n".join(self.s3.keys(self.key(job, ""))[-12:])
                raise Wrong(f"{job.name} did not end within {seconds} s; its last keys:\n{last}")
            time.sleep(0.1)
        return fact

    # ------------------------------------------------------------------------------------------- verdicts

    def facts(self, job):
        """Each fact of a job, by key: its bytes. And the output's digest."""
        found = {key: self.s3.read(key) for key in self.s3.keys(self.key(job, "")) if key.endswith(".json")}
        output = self.s3.read(job.output)
        return {**found, "output": output and hashlib.sha256(output).hexdigest()}

    def ledger(self):
        """The provider's ledger: job → (number, attempt, nonce) → the lines that were accepted for it."""
        accepted = defaultdict(lambda: defaultdict(list))
        with open(settings.simulator_ledger(self.simulator_data), "rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    entry = json.loads(line)
                    job, number, attempt, nonce = entry["metadata"]["batchmill"].split("/")
                    accepted[job][int(number), int(attempt), nonce].append(entry)
        return accepted

    def mend(self, jobs):
        """Has the reconciler look at ended jobs that are still among the open ones; how many there were.

        A splitter that was stopped just before it puts a job's `open/` record puts it when it wakes up, and may lose
        its partition before it reads that the job has ended. Nothing is at stake, and only the reconciler can know.
        """
        def left():
            return [job for job in jobs if self.s3.read(f"{self.name}/open/{job.name}") is not None]
        if not (found := len(left())):
            return 0
        mender = self.start("merger", reconcile_seconds=1)
        wait_until(lambda: not left(), "ended jobs stay among the open ones, and the reconciler does not help", 60,
                   alive=mender)
        mender.ask_to_stop()
        expect(mender.stopped(30) == 0, f"{mender.name} ended with {mender.returncode}")
        self.forget(mender)
        return found

    def verdict(self, job, accepted=None):
        """All of it: the output, what was paid, that nothing is left open. The job's figures, when all is right."""
        fact = self.end(job)
        expect(fact is not None, f"{job.name} has not ended")
        expect(fact.get("refusal") is None, f"{job.name} was refused: {fact.get('refusal')}")
        bill = Bill(self, job, self.ledger()[job.name] if accepted is None else accepted)
        first = self.folder / f"{job.name}.ledger.jsonl"
        with open(first, "w", encoding="utf-8") as out:
            out.writelines(json.dumps(line) + "\n" for line in bill.first_attempts())
        output = self.folder / f"{job.name}.output{''.join(job.source.suffixes)}"
        self.s3.get(job.output, output)
        try:
            rows = oracle.judge(input=str(job.source), output=str(output), template=job.template, model="digest",
                                ledger=[str(first)])
        except oracle.Differences as found:
            raise Wrong(f"{job.name}: {found}") from None
        expect(rows == job.rows, f"{job.name}: {rows} rows in the output, {job.rows} in the input")
        expect(self.s3.read(f"{self.name}/open/{job.name}") is None, f"{job.name} has ended and is still an open one")
        output.unlink()
        return bill

    def no_letters(self):
        """No event of ours went to the dead letters."""
        topics = self.admin().list_topics(timeout=20).topics
        letters = [topic for topic in topics if topic.startswith(f"dlq.{self.name}-")]
        expect(not letters, f"events went to the dead letters: {letters}")


class Bill:
    """What the facts order against what the ledger has: each batch attempt once, each row of it once, nothing else."""

    def __init__(self, fleet, job, accepted):
        self.fleet, self.job, self.accepted = fleet, job, accepted
        plan = self._fact("2-plan.json")
        self.ordered, self.failed, self.retried_rows, self.adopted = {}, set(), 0, 0
        for batch in plan["batches"]:
            while batch is not None:
                self.ordered[batch["number"], batch["attempt"]] = batch
                result = self._fact(f"4-results/{batch['number']:08}-a{batch['attempt']}.json")
                following = result["next"]
                if result["provider_status"] == "failed":
                    self.failed.add((batch["number"], batch["attempt"]))
                if following is not None:
                    self._only_unanswered(batch, result, following)
                    self.retried_rows += following["data"]["rows"]
                batch = following
        self._compare()
        self._logs_agree()

    def _fact(self, name):
        found = self.fleet.s3.read(self.fleet.key(self.job, name))
        expect(found is not None, f"{self.job.name}: {name} is missing")
        return json.loads(found)

    def _table(self, data, column):
        import io
        import blake3
        import pyarrow.parquet
        found = self.fleet.s3.read(f"{self.fleet.name}/{data['key']}")
        expect(found is not None, f"{self.job.name}: {data['key']} is missing, and a fact names it")
        expect(blake3.blake3(found).hexdigest() == data["blake3"], f"{data['key']} is not what its fact says")
        return pyarrow.parquet.read_table(io.BytesIO(found), columns=column).to_pydict()

    def _only_unanswered(self, batch, result, following):
        """What is tried again was not answered: else it would be paid twice."""
        rows = self._table(batch["data"], ["_row"])["_row"]
        status = self._table(result["data"], ["status"])["status"]
        answered = {row for row, word in zip(rows, status) if word == "answered"}
        again = set(self._table(following["data"], ["_row"])["_row"])
        expect(again <= set(rows) - answered, f"{self.job.name}: rows {sorted(again & answered)[:5]} were answered in "
                                              f"{batch['number']}-a{batch['attempt']} and are tried again")

    def _compare(self):
        wrong, left = [], {mark: list(lines) for mark, lines in self.accepted.items()}
        for (number, attempt), batch in self.ordered.items():
            lines = left.pop((number, attempt, batch["nonce"]), [])
            # A batch that turns `failed` after its create was never executed, and is not in the ledger.
            if len(lines) != (1 if batch["send_rows"] and (number, attempt) not in self.failed else 0):
                wrong.append(f"batch {number}-a{attempt} was accepted {len(lines)} times: "
                             f"{[line['batch'] for line in lines]}")
            for line in lines:
                ids = Counter(row["custom_id"] for row in line["rows"])
                nonces = {name.rsplit("-", 1)[0] for name in ids}
                if max(ids.values()) > 1 or len(ids) != batch["send_rows"] or nonces != {batch["nonce"]}:
                    wrong.append(f"batch {number}-a{attempt} was to have {batch['send_rows']} rows, and has {len(ids)} "
                                 f"of {nonces}")
        wrong += [f"batch {mark} was accepted and nothing ordered it" for mark in left]
        expect(not wrong, f"{self.job.name}: double-billed or lost:\n" + "\n".join(wrong[:8]))

    def _logs_agree(self):
        """Each submission log ends with the batch that the ledger has, or with none if nothing was to be sent."""
        last = {}
        for key in self.fleet.s3.keys(self.fleet.key(self.job, "3-submissions")):
            last[key.split("/")[-2]] = key  # they come in order
        for (number, attempt), batch in self.ordered.items():
            entry = json.loads(self.fleet.s3.read(last[f"{number:08}-a{attempt}"]))
            accepted = [line["batch"] for line in self.accepted.get((number, attempt, batch["nonce"]), [])]
            named = [entry["provider_batch"]] if entry["step"] == "submitted" else []
            expect(named == accepted or (number, attempt) in self.failed and not accepted,
                   f"{self.job.name}: the log of {number}-a{attempt} ends with {entry}, and the ledger has {accepted}")
            self.adopted += entry.get("adopted") is True

    def first_attempts(self):
        """Of each batch the ledger's line of its first attempt that was executed: each row must be in them once."""
        first = {}
        for (number, _, _), lines in sorted(self.accepted.items(), key=lambda item: item[0][:2]):
            first.setdefault(number, lines)
        return [line for lines in first.values() for line in lines]
