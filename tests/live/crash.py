"""The crash matrix: at each named crash point a process dies, or stops and goes on as a zombie when others have its
work.

    run.py crash            the dispatcher's points, and one each of the loop's and of `put_once`'s
    run.py crash --all      each point × {kill, zombie}; points of the loop and of `put_once` in each of the four rooms
    run.py crash --only dispatcher.created

The points are those of `shared/faults/src/points.rs`: one that is added there is walked here. A cell is a job of 40
rows in four batches. It passes if the process was really hit at the point while the job was open, the job ends without
the victim, the output is right, the provider accepted each batch attempt that the facts order once and nothing else,
and, for a zombie, all of that is still so, byte for byte, when it has been woken up and has found its group again.
"""

import queue
import re
import threading
import time

import settings
import tables
from checks import expect
from fleet import Fleet, Job
from servers import wait_until

POINTS = settings.REPO / "shared" / "faults" / "src" / "points.rs"
EVERY_ROOM = ("loop", "put_once")
ROWS, ROWS_IN_BATCH = 40, 10
HIT_SECONDS, JOB_SECONDS, WAKE_SECONDS, STOP_SECONDS = 45, 90, 60, 30
LANES = 3

# A fence needs a file whose create has no outcome: a dispatcher before this one dies between the file's entry and the
# create.
BEFORE = dict.fromkeys(["dispatcher.listed", "dispatcher.deleted", "dispatcher.fenced"], "dispatcher.recorded=kill")


def points():
    """The names of all crash points, in the order of a job's way."""
    found = re.findall(r'^ +\w+ = "([a-z_]+\.[a-z_]+)",$', POINTS.read_text(encoding="utf-8"), re.MULTILINE)
    expect(len(found) >= 27, f"only {len(found)} crash points in {POINTS}")
    return found


def matrix():
    """All cells: (point, room, deed)."""
    return [(point, room, deed) for point in points() for deed in ("kill", "zombie")
            for room in (settings.ROOMS if point.split(".")[0] in EVERY_ROOM else [point.split(".")[0]])]


def subset():
    """What fits two minutes: where money is at stake, and each common point once, the rooms in turn."""
    cells = [cell for cell in matrix() if cell[0].startswith("dispatcher.")]
    common = [point for point in points() if point.split(".")[0] in EVERY_ROOM]
    return cells + [(point, settings.ROOMS[at % 4], ("kill", "zombie")[at % 2]) for at, point in enumerate(common)]


def chosen(whole, prefix):
    """The cells that the command line asks for."""
    cells = matrix() if whole or prefix else subset()
    return [cell for cell in cells if not prefix or cell[0].startswith(prefix)]


class Lane:
    """A fleet in which cells are walked one after the other; after a failure it is replaced by a new one."""

    def __init__(self, number, folder, kafka, s3):
        self.number, self.folder, self.kafka, self.s3 = number, folder, kafka, s3
        self.fleet, self.rooms, self.lives, self.source = None, {}, 0, None

    def open(self):
        """A fleet with one process of each room."""
        self.lives += 1
        self.fleet = Fleet(f"crash{self.number}-{self.lives}", self.folder, self.kafka, self.s3)
        self.fleet.topics()
        self.fleet.start_simulator()
        self.rooms = {room: self.fleet.start(room) for room in settings.ROOMS}
        self.source = self.fleet.folder / "in.csv"
        whole = tables.original("weather", self.fleet.folder).read_bytes().splitlines(keepends=True)
        self.source.write_bytes(b"".join(whole[:ROWS + 1]))
        self.s3.put(f"in/{self.fleet.name}.csv", self.source)
        for service in self.rooms.values():
            self.fleet.joined(service)

    def close(self):
        """Ends all of it."""
        if self.fleet is not None:
            self.fleet.close()
            self.fleet = None

    def replace(self, room, crash_at):
        """Another process takes a room over when nothing is left to do; the one before drains and ends with 0."""
        old, new = self.rooms[room], self.fleet.start(room, crash_at)
        old.ask_to_stop()
        ended(self.fleet, old)
        self.fleet.joined(new)
        self.rooms[room] = new
        return new

    def walk(self, point, room, deed):
        """One cell."""
        if self.fleet is None:
            self.open()
        order = f"{point}={'kill' if deed == 'kill' else 'stop'}"
        first = self.replace(room, BEFORE.get(point, order))
        name = f"{point}-{room}-{deed}".replace(".", "-").replace("_", "-")
        job = Job(name, self.source, tables.template("weather"), f"out/{self.fleet.name}/{name}.csv", ROWS)
        expect(first.poll() is None and first.state() != "T", f"{point} was passed before there was a job")
        with Faults(self.fleet, point):
            self.fleet.ask(job, self.fleet.spec(job, f"in/{self.fleet.name}.csv", ROWS_IN_BATCH))
            victim = first
            if point in BEFORE:
                hit(self.fleet, first, "kill", job, BEFORE[point])
                self.fleet.forget(first)
                victim = self.fleet.start(room, order)
            hit(self.fleet, victim, deed, job, point)
            if deed == "kill":
                self.fleet.forget(victim)
            self.rooms[room] = heir = self.fleet.start(room)
            self.fleet.ended(job, JOB_SECONDS, victim)
        self.fleet.joined(heir)
        self.fleet.quiet()
        if deed == "zombie":
            self.wake(victim, job)
        self.fleet.verdict(job)

    def wake(self, victim, job):
        """The sleeper goes on where it stopped, finds its group again, and has changed nothing."""
        expect(victim.state() == "T", f"{victim.name} no longer sleeps: {victim.state()}")
        before, place = self.fleet.facts(job), victim.log.stat().st_size
        victim.go_on()
        self.fleet.joined(victim, since=place, all_of_them=False)
        wait_until(victim.is_idle, f"{victim.name} is still busy after it woke up", WAKE_SECONDS, alive=victim)
        self.fleet.quiet()
        self.fleet.mend([job])
        after = self.fleet.facts(job)
        changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        expect(not changed, f"the zombie changed {changed}")
        victim.ask_to_stop()
        ended(self.fleet, victim)


class Faults:
    """What the provider does wrong so that a point is passed at all."""

    SCRIPTS = {"poller.retried": [{"fault": "row_error", "when": {"first": 4}, "rows": {"every": 3}}]}

    def __init__(self, fleet, point):
        self.fleet, self.script = fleet, self.SCRIPTS.get(point)

    def __enter__(self):
        if self.script:
            self.fleet.faults(self.script)

    def __exit__(self, *_):
        if self.script:
            self.fleet.faults([])


def ended(fleet, service):
    """A process that was asked to stop drains and ends with 0."""
    code = service.stopped(STOP_SECONDS)
    expect(code == 0, f"{service.name} ended with {code} (None: not within {STOP_SECONDS} s)\n{service.tail(2000)}")
    fleet.forget(service)


def hit(fleet, victim, deed, job, point):
    """Waits until the process is dead, or asleep, at its point, while the job is open."""
    def there():
        return victim.poll() is not None or deed == "zombie" and victim.state() == "T"
    limit = time.monotonic() + HIT_SECONDS
    while not there():
        fleet.living(victim)
        expect(time.monotonic() < limit, f"{victim.name} did not pass {point} within {HIT_SECONDS} s")
        time.sleep(0.02)
    code = victim.poll()
    expect(code is None if deed == "zombie" else code == -9, f"{victim.name} ended with {code}:\n{victim.tail()}")
    expect(victim.log.stat().st_size > 0 and job.asked, f"{victim.name} was hit before {job.name} was asked for")


def run(checks, folder, kafka, s3, cells):
    """Walks the cells in a few lanes side by side."""
    waiting = queue.SimpleQueue()
    for cell in cells:
        waiting.put(cell)
    lanes = [Lane(number, folder, kafka, s3) for number in range(LANES)]

    def walk(lane):
        try:
            while True:
                try:
                    point, room, deed = waiting.get_nowait()
                except queue.Empty:
                    break
                if not checks.run(f"crash: {point} in the {room}, {deed}", lane.walk, point, room, deed):
                    lane.close()
            if lane.fleet is not None:
                checks.run(f"crash: no dead letters in lane {lane.number}", lane.fleet.no_letters)
        finally:
            lane.close()

    threads = [threading.Thread(target=walk, args=(lane,), name=f"lane {lane.number}") for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
