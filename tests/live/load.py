"""Under load: a slow provider, a slow room, a large job beside a small one, and more or fewer processes of each room.

What is asserted comes from Prometheus, from the clock of this test, and from the facts and the provider's ledger; what follows
from the design, and the figures of one run, are in docs/BACKPRESSURE.md. `run.py load` takes small figures, `run.py load-full`
larger ones, and measures dispatchers and pollers by number.
"""

import datetime
import json
import time
from dataclasses import dataclass
from pathlib import Path

import picture
from checks import Checks, expect
from loadfleet import LoadFleet, Sluggish
from watch import Watch

MARKS = {"batches": (12, 6), "submissions": (8, 4), "results": (6, 3)}
ROOM_OF = {"batches": "dispatcher", "submissions": "poller", "results": "merger"}
UPSTREAM = {"batches": "splitter", "submissions": "dispatcher", "results": "poller"}
# What a room's memory may grow by while nothing but time passes: the allocator's and the metrics' own.
FLAT, FLAT_BYTES = 1.1, 4 << 20


@dataclass
class Size:
    """How much is done."""
    jobs: int = 3
    batches: int = 20
    slow_seconds: int = 16
    stuck_ms: int = 3000
    large_batches: int = 60
    moving_batches: int = 30
    # How many dispatchers and pollers are measured, and on how many batches.
    instances: tuple = ()
    scaled_batches: int = 0


SMALL = Size()
LARGE = Size(batches=60, slow_seconds=75, stuck_ms=5000, large_batches=200, moving_batches=150, instances=(1, 2, 4), scaled_batches=60)


class Load:
    """The stage: its servers, its Prometheus and what was measured."""

    def __init__(self, checks, folder, kafka, s3, size, picture_file=None):
        self.checks, self.folder, self.kafka, self.s3, self.size = checks, Path(folder), kafka, s3, size
        self.picture_file, self.figures, self.watch = picture_file, {}, Watch(self.folder / "prometheus")

    def fleet(self, name, **settings):
        """Topics, a simulator and a store prefix."""
        return LoadFleet(name, self.folder, self.kafka, self.s3, self.watch, **settings)

    def note(self, **figures):
        """Keeps figures and prints them."""
        self.figures |= figures
        print("     " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)

    # ------------------------------------------------------------------------------------------- what must hold

    def bounded(self, fleet, began):
        """Each edge's exact lag stayed at its high mark, with one process on each side; `results` has the plans too."""
        for edge, (high, _) in fleet.marks.items():
            most = self.watch.most(fleet.lag_of(edge), began)
            bound = high + (self.size.jobs if edge == "results" else 0)
            self.note(**{f"{fleet.name}_{edge}_lag": f"{most:.0f} of {high}"})
            expect(most <= bound, f"{edge}: an exact lag of {most}, over {bound}")

    def paused(self, fleet, edge, began):
        """The room before the edge paused, and went on."""
        query = f'batchmill_gate_closed{{fleet="{fleet.name}",service="{UPSTREAM[edge]}",edge="{edge}"}}'
        states = [value for _, value in self.watch.points(query, began)]
        expect(1 in states, f"{UPSTREAM[edge]} never paused before {edge}")
        expect(states[-1] == 0, f"{UPSTREAM[edge]} is still paused before {edge}")
        self.note(**{f"{fleet.name}_{UPSTREAM[edge]}_paused_seconds": f"{sum(states):.0f} of {len(states)}"})

    def flat(self, fleet, began, ended):
        """No room's memory grew in the last third of a time in which the backlog stood."""
        for room in ("splitter", "dispatcher", "poller", "merger"):
            query = f'process_resident_memory_bytes{{fleet="{fleet.name}",service="{room}"}}'
            points = [value for _, value in self.watch.points(query, began, ended)]
            third = len(points) // 3
            middle, last = max(points[third:2 * third]), max(points[2 * third:])
            self.note(**{f"{fleet.name}_{room}_mb": f"{middle / 1e6:.1f} → {last / 1e6:.1f}"})
            expect(last <= max(middle * FLAT, middle + FLAT_BYTES), f"{room} grew from {middle} to {last} bytes")

    # ------------------------------------------------------------------------------------------- slow provider

    def slow_provider(self):
        """Batches stay at the provider for long, and some of their rows fail for the moment; then it recovers."""
        fleet = self.fleet("slow-provider", marks=MARKS)
        try:
            fleet.faults([{"fault": "batch_stuck", "for_ms": self.size.stuck_ms},
                          {"fault": "row_error", "status": 500, "when": {"every": 5}, "rows": {"nth": [2, 3]}},
                          {"fault": "row_error", "status": 429, "code": "rate_limit_exceeded", "when": {"every": 4},
                           "rows": {"nth": 1}}])
            fleet.rooms()
            began = time.time()
            jobs = [fleet.submit(f"slow-{number}", self.size.batches, 5) for number in range(self.size.jobs)]
            fleet.idle(self.size.slow_seconds)
            expect(not any(fleet.end(job) for job in jobs), "a job ended while the provider was slow: nothing was shown")
            recovered = time.time()
            fleet.faults([])
            for job in jobs:
                fleet.ended(job, 180)
            ended = time.time()
            self.note(slow_provider_drained_seconds=f"{ended - recovered:.0f}")
            again = fleet.right(jobs)
            self.note(slow_provider_rows_tried_again=again)
            expect(again > 0, "no row was tried again")
            time.sleep(2)  # two more looks of Prometheus: the gates are open
            check = self.checks.run
            check("slow provider: exact lag within its bounds", self.bounded, fleet, began)
            check("slow provider: the splitter paused and went on", self.paused, fleet, "batches", began)
            check("slow provider: the dispatcher paused and went on", self.paused, fleet, "submissions", began)
            check("slow provider: memory is flat", self.flat, fleet, began + 4, recovered)
            if self.picture_file:
                picture.draw(self.watch.url, began - 2, time.time(), self.picture_file, [f'fleet="{fleet.name}"'],
                             [(began, "three jobs asked for"), (recovered, "the provider recovers"), (ended, "all ended")])
        finally:
            fleet.close()

    # ------------------------------------------------------------------------------------------- slow room

    def slow_room(self):
        """The merger stands still nine tenths of the time; the pause goes up to the splitter, room by room."""
        fleet = self.fleet("slow-room", marks=MARKS)
        try:
            rooms = fleet.rooms()
            began = time.time()
            with Sluggish(rooms["merger"]):
                jobs = [fleet.submit(f"room-{number}", self.size.batches, 5) for number in range(self.size.jobs)]
                fleet.idle(self.size.slow_seconds)
            recovered = time.time()
            for job in jobs:
                fleet.ended(job, 180)
            self.note(slow_room_drained_seconds=f"{time.time() - recovered:.0f}")
            fleet.right(jobs)
            time.sleep(2)
            check = self.checks.run
            check("slow room: exact lag within its bounds", self.bounded, fleet, began)
            for edge in MARKS:
                check(f"slow room: the {UPSTREAM[edge]} paused and went on", self.paused, fleet, edge, began)
        finally:
            fleet.close()

    # ------------------------------------------------------------------------------------------- fairness

    def fairness(self):
        """A job of 100 rows alone, and the same behind a large one that has all places of a cap and fills the way to them."""
        cap, (high, low), stuck = 8, (16, 12), self.size.stuck_ms / 1000
        fleet = self.fleet("fairness", marks={"batches": (high, low)}, providers__sim__max_batches=cap)
        try:
            fleet.faults([{"fault": "batch_stuck", "for_ms": self.size.stuck_ms}])
            fleet.rooms()
            began = time.time()
            alone = self.small(fleet, "small-alone")
            large = fleet.submit("large", self.size.large_batches, 5)
            full = f'batchmill_gate_closed{{fleet="{fleet.name}",service="splitter",edge="batches"}}'
            fleet.idle(stuck + 2)
            expect(self.watch.points(full, time.time() - 2)[-1][1] == 1, "the large job does not fill the way")
            beside = self.small(fleet, "small-beside")
            expect(fleet.end(large) is None, "the large job has ended already")
            # To the dispatcher: until the splitter goes on. There: until a place is free. Then its own time.
            bound = alone.took + stuck * ((high - low) / cap + 1) + 3
            self.note(small_alone_seconds=f"{alone.took:.1f}", small_beside_large_seconds=f"{beside.took:.1f}",
                      small_bound_seconds=f"{bound:.1f}", large_batches=self.size.large_batches)
            expect(beside.took <= bound, f"{beside.took:.1f} s, over {bound:.1f} s")
            fleet.faults([])
            fleet.ended(large, 300)
            fleet.right([alone, beside, large])
            most = self.watch.most(f'sum(batchmill_poller_batches_at_provider{{fleet="{fleet.name}"}})', began)
            self.note(fairness_batches_at_provider=f"{most:.0f} of {cap}")
            expect(most <= cap, f"{most} batches at the provider, over the cap of {cap}")
        finally:
            fleet.close()

    @staticmethod
    def small(fleet, name):
        """A job of 100 rows in one batch, and how long it took."""
        asked = time.monotonic()
        job = fleet.submit(name, 1, 100)
        fleet.ended(job, 120)
        job.took = time.monotonic() - asked
        return job

    # ------------------------------------------------------------------------------------------- scaling

    def scaling(self):
        """Dispatchers and pollers by number, each request a third of a second long, one handler at a time in each process."""
        fleet = self.fleet("scaling", partitions=12, loop__max_running=1)
        fleet.far("dispatcher")
        fleet.far("poller")
        jobs, table = [], {}
        try:
            fleet.rooms()
            for count in self.size.instances:
                for room in ("dispatcher", "poller"):
                    more = count - sum(service.room == room for service in fleet.services)
                    fleet.launch(room, more)
                fleet.idle(4)  # the last rebalance is over
                table[count] = [self.rate(fleet, jobs, "dispatcher", count), self.rate(fleet, jobs, "poller", count)]
                self.note(**{f"scaling_{count}": "dispatchers {:.2f}, pollers {:.2f} batches a second".format(*table[count])})
            fleet.right(jobs)
        finally:
            fleet.close()
        first, last = table[self.size.instances[0]], table[self.size.instances[-1]]
        for room, one, many in zip(("dispatcher", "poller"), first, last):
            self.note(**{f"scaling_{room}_times": f"{many / one:.1f}"})
            expect(many >= one * 1.8, f"{room}: {one:.2f} batches a second with one, {many:.2f} with {self.size.instances[-1]}")

    def rate(self, fleet, jobs, room, count):
        """Batches a second of one room: to the other the provider is near. For the poller all batches end at about one time."""
        other = {"dispatcher": "poller", "poller": "dispatcher"}[room]
        fleet.far(room).seconds, fleet.far(other).seconds = 0.3, 0
        fleet.faults([{"fault": "batch_stuck", "for_ms": 8000}] if room == "poller" else [])
        job = fleet.submit(f"{room}-{count}", self.size.scaled_batches, 3)
        jobs.append(job)
        fleet.ended(job, 300)
        times = fleet.times(job, {"dispatcher": "submitted", "poller": "collected"}[room])
        first, last = (datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (times[0], times[-1]))
        return (len(times) - 1) / (last - first).total_seconds()

    def moving(self):
        """Under load each room gets a second process, and loses its first one."""
        fleet = self.fleet("moving", partitions=6)
        try:
            fleet.faults([{"fault": "batch_stuck", "for_ms": 1500},
                          {"fault": "row_error", "status": 500, "when": {"every": 6}, "rows": {"nth": 1}}])
            rooms = fleet.rooms()
            jobs = [fleet.submit(f"moving-{number}", self.size.moving_batches, 4) for number in range(2)]
            for room, service in rooms.items():
                fleet.launch(room)
                fleet.shared(room, 2)
                fleet.end_one(service)
            jobs.append(fleet.submit("moving-last", 10, 4))
            for job in jobs:
                fleet.ended(job, 180)
            again = fleet.right(jobs)
            self.note(moving_jobs=len(jobs), moving_rows_tried_again=again)
        finally:
            fleet.close()

    def run(self):
        """All of it."""
        check = self.checks.run
        try:
            check("slow provider: pressure, recovery, every row right", self.slow_provider)
            check("slow room: pressure, recovery, every row right", self.slow_room)
            check("fairness: a small job beside a large one", self.fairness)
            if self.size.instances:
                check("scaling: dispatchers and pollers by number", self.scaling)
            check("moving: processes come and go in each room", self.moving)
        finally:
            self.watch.close()
        (self.folder / "figures.json").write_text(json.dumps(self.figures, indent=1), encoding="utf-8")


def run(checks: Checks, folder, kafka, s3, size, picture_file=None):
    """The stage on these servers."""
    Path(folder).mkdir(parents=True)
    Load(checks, folder, kafka, s3, size, picture_file).run()
