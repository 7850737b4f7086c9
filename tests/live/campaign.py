#!/usr/bin/env python3
"""The kill campaign: jobs run while everything around them dies, and nothing is lost or paid twice.

    .parts/venv/bin/python tests/live/campaign.py --minutes 60 --seed 7        or --keep, for the logs

Two processes of each service, a provider, Kafka and S3. Services are killed (-9), stopped for longer than their session
and woken up as zombies, killed and stopped at named crash points, and ended in order (SIGTERM); the broker, S3 and the
provider are killed and restarted on their data, and the broker is stopped until its controller gives it up; the provider
lies as its fault scripts say, which change all the time. Three jobs are open at any moment: CSV, gzipped CSV, TSV and
Parquet, of a hundred to some thousands of rows. What is drawn, and when, follows from the seed; what it meets does not.

At the end the faults stop, and every job must end. Then, for each job, from its input, its facts and the provider's
ledger: the output holds every row once, in order, unchanged, with the answer that follows from its own prompt; the
provider accepted each batch attempt that the facts order once and nothing else; a row that was answered was never sent
again. A kind of fault that never fired while jobs were open fails the run: it would have tested nothing.
"""

import argparse
import heapq
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracle")]

import settings  # noqa: E402
import tables  # noqa: E402
from checks import Wrong, expect  # noqa: E402
from faults import BROKER_SLEEP, DEEDS, LIES, MACHINES, POINTS, SERVERS  # noqa: E402
from fleet import SESSION_MS, Fleet, Job  # noqa: E402
from servers import S3, Kafka, wait_until  # noqa: E402

CI_SEED = 4
OPEN_JOBS = 3
END_SECONDS = 300
LEAVE_SECONDS = 150
# Between two faults of the machines, and between two fault scripts of the provider.
GAP, SCRIPT_SECONDS = (0.8, 2.6), (3.0, 6.0)
RULES_AT_A_TIME = 8

TABLES = sorted(tables.TABLES)
FORMS = ["original", "csv.gz", "parquet"]
RETRY = {kind: "deadline" for kind in
         ("server_error", "timeout", "missing", "malformed", "batch_failed", "expired", "rate_limited")}


class Slot:
    """A place for one process of a room: which process holds it, and what is being done to it."""

    def __init__(self, room, service):
        self.room, self.service = room, service
        self.state = "up"  # up, down, asleep, leaving
        self.order = None  # the crash point that it was started with
        self.excused, self.patience = False, 0  # while it leaves: whether it may fail, and until when it has time

    def is_free(self):
        """Whether something may be done to it."""
        return self.state == "up" and self.order is None


class Campaign:
    """The jobs, the faults and the counts."""

    def __init__(self, folder, minutes, seed, kafka, s3):
        self.random, self.minutes, self.seed = random.Random(seed), minutes, seed
        self.kafka, self.s3, self.folder = kafka, s3, Path(folder)
        self.fleet = Fleet("campaign", folder, kafka, s3)
        self.slots, self.jobs, self.open = [], [], []
        self.fired, self.at_work, self.points, self.lies = Counter(), Counter(), Counter(), Counter()
        self.deck, self.lie_deck, self.script = [], [], []
        self.agenda, self.steps = [], 0
        self.down, self.restarting, self.failures = None, None, []
        self.began, self.lasted = time.monotonic(), 0

    # ------------------------------------------------------------------------------------------- plumbing

    def at(self, seconds, deed, *arguments):
        """Does something so many seconds from now."""
        self.steps += 1
        heapq.heappush(self.agenda, (time.monotonic() + seconds, self.steps, deed, arguments))

    def note(self, text):
        """A line of the campaign's own log."""
        with open(self.folder / "campaign.log", "a", encoding="utf-8") as out:
            out.write(f"{time.monotonic() - self.began:8.2f} {text}\n")

    def count(self, kind, work=None):
        """A fault has fired. It counts if a job is open; and apart if the process had work in its hands."""
        self.note(f"{kind}{'' if work is None else f', {work:.0f} events in its hands'}; open: "
                  f"{' '.join(job.name for job in self.open)}")
        if self.open:
            self.fired[kind] += 1
            self.at_work[kind] += bool(work)

    # ------------------------------------------------------------------------------------------- jobs

    def submit(self):
        """Asks for one more job, drawn at random."""
        number = len(self.jobs) + 1
        table, form = self.random.choice(TABLES), self.random.choice(FORMS)
        rows, rows_in_batch = self.random.randint(100, 2500), self.random.choice([40, 80, 150, 300])
        folder = self.fleet.folder / f"job-{number:03}"
        source, rows = part(table, form, rows, folder)
        name = f"job-{number:03}-{table}"
        ending = "".join(source.suffixes)
        job = Job(name, source, tables.template(table), f"out/{name}{ending}", rows)
        self.s3.put(f"in/{name}{ending}", source)
        self.fleet.ask(job, self.fleet.spec(job, f"in/{name}{ending}", rows_in_batch, RETRY))
        self.jobs.append(job)
        self.open.append(job)
        self.note(f"asked for {name}: {rows} rows, {rows_in_batch} in a batch, {form}")

    def look_at_jobs(self):
        """Takes ended jobs from the open ones."""
        for job in list(self.open):
            if self.fleet.end(job) is not None:
                self.open.remove(job)
                job.seconds = time.monotonic() - job.asked
                self.note(f"{job.name} has ended after {job.seconds:.1f} s")

    # ------------------------------------------------------------------------------------------- faults of services

    def draw(self):
        """The next fault of a machine: each kind comes once before any comes again."""
        if not self.deck:
            self.deck = self.random.sample(MACHINES, len(MACHINES))
        kind = self.deck.pop()
        if kind in SERVERS:
            if self.down is None:
                self.kill_server(kind)
            else:
                self.deck.insert(0, kind)
        else:
            room, deed = kind.split(" ", 1)
            free = [slot for slot in self.slots if slot.room == room and slot.is_free()]
            if free:
                self.random.shuffle(free)  # of two with as much work, either
                work = {slot: slot.service.metric("batchmill_loop_unfinished", timeout=0.3) or 0 for slot in free}
                victim = max(free, key=work.get)
                self.hurt(victim, deed, kind, work[victim])
            else:
                self.deck.insert(0, kind)
        self.at(self.random.uniform(*GAP), self.draw)

    def hurt(self, slot, deed, kind, work):
        """Kills or stops a process now, or replaces it by one that does so itself at a crash point."""
        if deed == "killed":
            slot.service.kill()
            self.count(kind, work)
            self.revive_later(slot)
        elif deed == "terminated":
            slot.service.ask_to_stop()
            self.count(kind, work)
            slot.state, slot.excused = "leaving", self.down is not None
            slot.patience = time.monotonic() + LEAVE_SECONDS
        elif deed == "stopped":
            slot.service.stop()
            self.count(kind, work)
            self.wake_later(slot)
        else:
            point, passage = self.random.choice(POINTS[slot.room]), self.random.choice([1, 1, 1, 2, 3, 5])
            self.fleet.forget(slot.service)
            slot.order = (kind, point)
            slot.service = self.fleet.start(slot.room, f"{point}={deed.split()[0].replace('ped', '').replace('ed', '')}"
                                                       f"@{passage}")
            self.note(f"{slot.service.name} waits for {point}@{passage}")

    def revive_later(self, slot):
        """The process is dead; another takes its place soon."""
        self.fleet.forget(slot.service)
        slot.state, slot.order = "down", None
        self.at(self.random.uniform(0, 3), self.revive, slot)

    def revive(self, slot):
        """Another process in a dead one's place."""
        slot.service, slot.state = self.fleet.start(slot.room), "up"

    def wake_later(self, slot):
        """The process sleeps for longer than its session lasts."""
        slot.state = "asleep"
        self.at(SESSION_MS / 1000 + self.random.uniform(0.7, 4), self.wake, slot)

    def wake(self, slot):
        """The sleeper goes on, as a zombie."""
        slot.service.go_on()
        slot.state, slot.order = "up", None

    def look_at_services(self):
        """Finds who died or fell asleep at a crash point, and who died without being asked to."""
        for slot in self.slots:
            if slot.state == "leaving":
                self.look_at_leaver(slot)
            if slot.state != "up":
                continue
            code = slot.service.poll()
            if slot.order is None:
                expect(code is None, f"{slot.service.name} ended by itself with {code}:\n{slot.service.tail()}")
                continue
            kind, point = slot.order
            if code is None and not (kind.split()[1] == "stopped" and slot.service.state() == "T"):
                continue
            expect(code in (None, -9), f"{slot.service.name} ended with {code}:\n{slot.service.tail()}")
            self.count(kind, 1)
            self.points[point] += 1
            if code is None:
                self.wake_later(slot)
            else:
                self.revive_later(slot)

    def look_at_leaver(self, slot):
        """Who was asked to end does so in time; with 0, unless a server that it must tell was away meanwhile."""
        slot.excused = slot.excused or self.down is not None
        code = slot.service.poll()
        if code is None:
            expect(time.monotonic() < slot.patience,
                   f"{slot.service.name} has not ended {LEAVE_SECONDS} s after SIGTERM:\n{slot.service.tail()}")
            return
        # One that was asked so early that it had not said a word yet has no handler for the signal.
        unborn = code == -signal.SIGTERM and not slot.service.tail()
        expect(code == 0 or unborn or slot.excused and code > 0, f"{slot.service.name} ended with {code} after SIGTERM:\n"
                                                       f"{slot.service.tail()}")
        self.note(f"{slot.service.name} has ended with {code}")
        self.revive_later(slot)

    # ------------------------------------------------------------------------------------------- faults of servers

    def kill_server(self, kind):
        """Kills the broker, S3 or the provider, or stops the broker; it comes back some seconds later."""
        self.down = kind
        if kind == "broker stopped":
            os.kill(self.kafka.process.pid, signal.SIGSTOP)
            self.count(kind)
            self.at(self.random.uniform(*BROKER_SLEEP), self.wake_broker)
            return
        if kind == "provider killed":
            self.collect_lies()
            self.fleet.simulator.kill()
        else:
            (self.kafka if kind == "broker killed" else self.s3).kill()
        self.count(kind)
        self.at(self.random.uniform(0.2, 3), self.restart_server, kind)

    def wake_broker(self):
        """The stopped broker goes on."""
        os.kill(self.kafka.process.pid, signal.SIGCONT)
        self.note("broker is back")
        self.down = None

    def restart_server(self, kind):
        """Starts it again on its data, beside everything else that goes on."""
        def restart():
            try:
                if kind == "provider killed":
                    self.fleet.start_simulator()
                    self.fleet.faults(self.script)
                else:
                    (self.kafka if kind == "broker killed" else self.s3).restart()
                self.note(f"{kind.split()[0]} is back")
                self.down = None
            except Exception as error:  # told to the campaign, which ends
                self.failures.append(f"{kind}, and did not come back: {error}")
        self.restarting = threading.Thread(target=restart)
        self.restarting.start()

    # ------------------------------------------------------------------------------------------- the provider's lies

    def lie(self):
        """Another fault script: each rule's turn comes before any comes again, those that never fired first."""
        if self.down != "provider killed":
            self.collect_lies()
            if len(self.lie_deck) < RULES_AT_A_TIME:
                again = self.random.sample(sorted(LIES), len(LIES))
                self.lie_deck += sorted(again, key=lambda name: self.lies[name] == 0)
            names = {self.lie_deck.pop() for _ in range(RULES_AT_A_TIME)}
            self.script = [LIES[name] for name in sorted(names)]
            self.fleet.faults(self.script)
            self.note(f"the provider lies: {' '.join(sorted(names))}")
        self.at(self.random.uniform(*SCRIPT_SECONDS), self.lie)

    def collect_lies(self):
        """Counts what the present script has done; the counters begin again with the next."""
        names = {json.dumps(rule, sort_keys=True): name for name, rule in LIES.items()}
        with urllib.request.urlopen(f"http://127.0.0.1:{self.fleet.simulator_port}/faults", timeout=10) as reply:
            for at, rule in enumerate(json.load(reply)["rules"]):
                self.lies[names[json.dumps(self.script[at], sort_keys=True)]] += rule["fired"]

    # ------------------------------------------------------------------------------------------- the run

    def start(self):
        """Everything up and joined, the first jobs asked for."""
        self.fleet.topics()
        self.fleet.start_simulator()
        self.slots = [Slot(room, self.fleet.start(room)) for room in settings.ROOMS for _ in range(2)]
        for slot in self.slots:
            self.fleet.joined(slot.service, all_of_them=False)
        self.began = time.monotonic()
        for _ in range(OPEN_JOBS):
            self.submit()
        self.at(0.2, self.lie)
        self.at(1, self.draw)

    def rage(self):
        """The faults, for as long as they last: a minute longer if some kind has not fired by then."""
        limit = self.began + 60 * self.minutes
        told = self.began
        while (now := time.monotonic()) < limit or self.never_fired() and now < limit + 60:
            expect(not self.failures, "\n".join(self.failures))
            while self.agenda and self.agenda[0][0] <= now:
                _, _, deed, arguments = heapq.heappop(self.agenda)
                deed(*arguments)
            self.look_at_services()
            if self.down is None:
                self.look_at_jobs()
                if len(self.open) < OPEN_JOBS:
                    self.submit()
            if now - told > 60:
                told = now
                print(f"     {(now - self.began) / 60:.0f} min: {sum(self.fired.values())} faults, "
                      f"{sum(self.lies.values())} lies, {len(self.jobs)} jobs, {len(self.open)} open", flush=True)
            time.sleep(0.05)

    def calm(self):
        """No more faults; all is brought up, and every job must end."""
        self.note("no more faults")
        self.lasted = time.monotonic() - self.began
        if self.restarting is not None:
            self.restarting.join()
        expect(not self.failures, "\n".join(self.failures))
        if self.down == "broker stopped":
            self.wake_broker()
        elif self.down is not None:
            self.restart_server(self.down)
            self.restarting.join()
        expect(not self.failures, "\n".join(self.failures))
        self.collect_lies()
        self.fleet.faults([])
        for slot in self.slots:
            if slot.order is not None or slot.state in ("down", "leaving"):
                self.fleet.forget(slot.service)
                self.revive(slot)
            elif slot.state == "asleep":
                self.wake(slot)
            slot.state, slot.order = "up", None
        limit = time.monotonic() + END_SECONDS
        while self.open:
            self.look_at_services()
            self.look_at_jobs()
            expect(time.monotonic() < limit,
                   f"{' '.join(job.name for job in self.open)}: not ended {END_SECONDS} s after the last fault")
            time.sleep(0.1)
        self.fleet.quiet(120)

    def judge(self):
        """Every job, by the oracle, the facts and the ledger."""
        wrong, ledger, rows, attempts, adopted = [], self.fleet.ledger(), 0, 0, 0
        mended = self.fleet.mend(self.jobs)
        for job in self.jobs:
            try:
                bill = self.fleet.verdict(job, ledger[job.name])
                rows, attempts, adopted = rows + job.rows, attempts + bill.retried_rows, adopted + bill.adopted
            except Wrong as found:
                wrong.append(str(found))
            except Exception as error:  # an output that can't be read, too, is a finding
                wrong.append(f"{job.name}: {error}\n{traceback.format_exc()}")
        expect(not wrong, "\n".join(wrong))
        self.fleet.no_letters()
        return {"jobs": len(self.jobs), "rows": rows, "rows sent again by order of a fact": attempts,
                "creates adopted by a fence": adopted, "open records that the reconciler removed": mended,
                "slowest job, seconds": round(max(job.seconds for job in self.jobs))}

    def table(self, figures):
        """The closing table."""
        lines = [("minutes", f"{self.lasted / 60:.1f}"), ("seed", self.seed)]
        for kind in MACHINES:
            at_work = "" if kind in SERVERS else f"  ({self.at_work[kind]} with events in its hands)"
            lines.append((kind, f"{self.fired[kind]}{at_work}"))
        lines.append(("crash points met", " ".join(f"{point}:{count}" for point, count in sorted(self.points.items()))))
        lines += [(f"provider: {name}", self.lies[name]) for name in LIES]
        lines += list(figures.items()) + [("lost", 0), ("duplicated", 0), ("double-billed", 0)]
        return "\n".join(f"     {name:<36} {value}" for name, value in lines)

    def never_fired(self):
        """Kinds that tested nothing."""
        return [kind for kind in MACHINES if not self.fired[kind]] + [name for name in LIES if not self.lies[name]]


def part(table, form, rows, folder):
    """The first rows of a table in a form; the file, and how many rows it has."""
    import gzip
    import pyarrow.csv
    import pyarrow.parquet
    folder.mkdir(parents=True)
    plain = tables.original(table, folder)
    whole = pyarrow.csv.read_csv(plain, parse_options=pyarrow.csv.ParseOptions(
        delimiter="\t" if plain.suffix == ".tsv" else ",", newlines_in_values=True))
    rows = min(rows, whole.num_rows)
    if form == "parquet":
        target = plain.with_suffix(".parquet")
        pyarrow.parquet.write_table(whole.slice(0, rows), target, row_group_size=500)
        plain.unlink()
        return target, rows
    # The table's own bytes, cut behind a record: a line end is one if the quotes before it are balanced.
    kept, records, quotes = [], -1, 0
    for line in plain.read_bytes().splitlines(keepends=True):
        if records == rows:
            break
        kept.append(line)
        quotes += line.count(b'"')
        records += quotes % 2 == 0
    if form == "original":
        plain.write_bytes(b"".join(kept))
        return plain, rows
    target = plain.with_name(plain.name + ".gz")
    target.write_bytes(gzip.compress(b"".join(kept)))
    plain.unlink()
    return target, rows


def run(folder, minutes, seed):
    """A campaign on servers of its own; raises Wrong with what was found."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with S3(folder, settings.BUCKET) as s3, Kafka(folder) as kafka:
        campaign = Campaign(folder, minutes, seed, kafka, s3)
        try:
            campaign.start()
            campaign.rage()
            campaign.calm()
            print(campaign.table(campaign.judge()), flush=True)
        finally:
            if campaign.restarting is not None:
                campaign.restarting.join()
            campaign.fleet.close()
        never = campaign.never_fired()
        expect(not never, f"never fired while a job was open: {', '.join(never)}")


def main():
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("--minutes", type=float, default=2, help="how long the faults last (2)")
    arguments.add_argument("--seed", type=int, default=CI_SEED, help="what is drawn, and when")
    arguments.add_argument("--keep", action="store_true", help="keep the working folder")
    options = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder, failed = Path(tempfile.mkdtemp(prefix="batchmill-campaign-")), True
    try:
        run(folder, options.minutes, options.seed)
        failed = False
    except Wrong as found:
        print(f"FAIL {found}", flush=True)
    finally:
        if failed or options.keep:
            print(f"logs are in {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    print(f"{0 if failed else 1} passed, {1 if failed else 0} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    from ending import leave
    leave(main())
