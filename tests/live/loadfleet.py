"""A fleet under load: more partitions, marks and caps of its own, several processes of a room, each looked at by Prometheus."""

import json
import threading
import time

import settings
from checks import expect
from fleet import TOPICS, Fleet, Job
from latency import Distance
from servers import wait_until

TEMPLATE = "Say {{ title }} of {{ id }}"
# Longer than a process of these tests is stopped, or stands in a queue for one of two processors.
SETTINGS = {"kafka.session_timeout_ms": 15000, "metrics.lag_seconds": 1, "backpressure.reading_ms": 200}


class LoadFleet(Fleet):
    """`marks`: edge → (high, low). `more`: other settings."""

    def __init__(self, name, folder, kafka, s3, watch, marks=None, partitions=4, **more):
        super().__init__(name, folder, kafka, s3)
        self.watch, self.partitions, self.marks = watch, partitions, marks or {}
        self.flags = {**SETTINGS, **{key.replace("__", "."): value for key, value in more.items()}}
        for edge, (high, low) in self.marks.items():
            self.flags |= {f"backpressure.{edge}.high": high, f"backpressure.{edge}.low": low}
        self.distances = {}
        self.start_simulator()
        self.topics()

    def far(self, room):
        """The way from a room to the provider."""
        if room not in self.distances:
            self.distances[room] = Distance(self.simulator_port)
        return self.distances[room]

    def launch(self, room, count=1):
        """Starts processes of a room and waits until each has partitions and is looked at."""
        return self._ready([self._start(room) for _ in range(count)])

    def rooms(self):
        """One process of each room; by room."""
        return {service.room: service for service in self._ready([self._start(room) for room in settings.ROOMS])}

    def _start(self, room):
        flags = dict(self.flags)
        if room in self.distances:
            flags["providers.sim.base_url"] = f"http://127.0.0.1:{self.distances[room].port}/v1"
        service = self.start(room, flags=[word for key, value in flags.items() for word in ("--set", f"{key}={value}")])
        self.watch.add(self.name, service)
        return service

    def _ready(self, services):
        for service in services:
            self.joined(service, all_of_them=False)
        self.watch.sees(self.name, [service.name for service in services])
        return services

    def shared(self, room, members):
        """Waits until each topic that a room reads is shared by so many members of its group."""
        def holders():
            group = self.admin().describe_consumer_groups([f"{self.name}-{room}"])[f"{self.name}-{room}"].result(20)
            held = {self.topic(topic): 0 for topic, readers in TOPICS.items() if room in readers}
            for member in group.members:
                for topic in {place.topic for place in member.assignment.topic_partitions}:
                    held[topic] += 1
            return held
        wait_until(lambda: set(holders().values()) == {members}, f"the topics of {room} are not shared by {members}", 30, every=0.5)

    def end_one(self, service):
        """SIGTERM: it drains and ends with 0."""
        service.ask_to_stop()
        code = service.stopped(30)
        expect(code == 0, f"{service.name} ended with {code}:\n{service.tail(1500)}")
        self.services.remove(service)

    def submit(self, name, batches, rows_in_batch):
        """Makes a table and asks for its job."""
        rows, source = batches * rows_in_batch, self.folder / f"{name}.csv"
        lines = (f"{row},word {row} of {name}\n" for row in range(rows))
        source.write_text("id,title\n" + "".join(lines), encoding="utf-8")
        job = Job(name, source, TEMPLATE, f"out/{self.name}/{name}.csv", rows)
        self.s3.put(f"in/{self.name}/{name}.csv", source)
        self.ask(job, self.spec(job, f"in/{self.name}/{name}.csv", rows_in_batch))
        return job

    def idle(self, seconds):
        """Lets time pass, in which no process may end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.living()
            time.sleep(0.2)

    def right(self, jobs):
        """All is finished, each job's output is right, and each row was paid as the facts order it; rows that were tried again."""
        self.quiet()
        again = sum(self.verdict(job).retried_rows for job in jobs)
        self.no_letters()
        return again

    def times(self, job, kind):
        """When batch attempts were submitted (`submitted`) or collected (`collected`), by the facts; ISO texts, sorted."""
        found = []
        if kind == "collected":
            for key in self.s3.keys(self.key(job, "4-results")):
                if key.endswith(".json"):
                    found.append(json.loads(self.s3.read(key))["collected_at"])
            return sorted(found)
        for key in self.s3.keys(self.key(job, "3-submissions")):
            entry = json.loads(self.s3.read(key))
            if entry["step"] == "submitted":
                found.append(entry["at"])
        return sorted(found)

    def lag_of(self, topic):
        """The query for a topic's exact lag, as its room reads it."""
        return f'max(batchmill_loop_lag_events{{fleet="{self.name}",topic="{self.topic(topic)}"}})'

    def close(self):
        """Ends everything."""
        for service in self.services:
            service.go_on()
        super().close()
        for distance in self.distances.values():
            distance.close()


class Sluggish:
    """A process that stands still for most of the time."""

    def __init__(self, service, still=1.2, awake=0.15):
        self.service, self.still, self.awake, self.over = service, still, awake, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.over.is_set():
            self.service.stop()
            self.over.wait(self.still)
            self.service.go_on()
            self.over.wait(self.awake)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(10)
        self.service.go_on()
