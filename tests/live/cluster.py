"""Four services as four processes and the simulator, over a real Kafka and a real S3."""

import json
import subprocess
import sys
import time
from pathlib import Path

import oracle
import rescue
import settings
import tables
import traces
from checks import Chain, Wrong, expect
from servers import Process, free_port, http_ok, listens, wait_until

JOB_SECONDS = 300
STOP_SECONDS = 20

# job: (table, form, how it is asked for)
JOBS = {
    "live-plain": ("movies", "original", "plain"),
    "live-structured": ("unemployment", "original", "structured"),
    "live-binary": ("bundesliga", "parquet", "binary"),
    "live-submit": ("species", "csv.gz", "submit"),
}


class Cluster:
    """The processes."""

    def __init__(self, folder, kafka, s3):
        self.folder, self.kafka, self.s3 = Path(folder), kafka, s3
        self.simulator_port = free_port()
        self.simulator_data = self.folder / "simulator"
        self.environment = settings.environment(s3)
        self.admin = {room: free_port() for room in settings.ROOMS}
        self.configs = {room: settings.config(folder, room, kafka, s3, f"http://127.0.0.1:{self.simulator_port}", port)
                        for room, port in self.admin.items()}
        self.processes = {}

    def config(self):
        """Any room's settings: what the command's other verbs read."""
        return self.configs["splitter"]

    def call(self, words):
        """Runs the command to its end; its standard output."""
        done = subprocess.run([str(word) for word in words], env=self.environment, cwd=self.folder,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        expect(done.returncode == 0, f"`{' '.join(map(str, words[1:]))}` ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return done.stdout

    def launch(self, name, words):
        """Starts one process."""
        self.processes[name] = Process(name, words, self.folder / f"{name}.log", env=self.environment, cwd=self.folder)

    def start_simulator(self):
        """Starts the simulator and waits until it listens."""
        self.launch("simulator", settings.simulator_words(settings.binary(), self.simulator_port, self.simulator_data))
        wait_until(lambda: listens(self.simulator_port), "the simulator is not ready", 30,
                   alive=self.processes["simulator"])

    def start_rooms(self):
        """Starts the four services and waits until each says that it is ready."""
        for room in settings.ROOMS:
            self.launch(room, settings.room_words(settings.binary(), room, self.configs[room]))
        for room in settings.ROOMS:
            try:
                wait_until(lambda port=self.admin[room]: http_ok(f"http://127.0.0.1:{port}/readyz"),
                           f"{room} is not ready", 60, alive=self.processes[room])
            except Exception as error:
                raise Wrong(f"{error}\n{self.processes[room].tail()}") from None

    def submit(self, job, table, source, form, **changes):
        """Uploads a job's input and asks for it: by the command, or (`form`) with an event of a foreign client; the output's key."""
        name = source.name.removeprefix(table)
        self.s3.put(f"in/{job}{name}", source)
        spec = settings.spec(job, f"in/{job}{name}", f"out/{job}{name}", tables.template(table), **changes)
        if form == "submit":
            file = self.folder / f"{job}.json"
            file.write_text(json.dumps(spec), encoding="utf-8")
            self.call(settings.submit_words(settings.binary(), file, self.config()))
        else:
            produce(self.kafka, spec, form)
        return f"out/{job}{name}"

    def end(self, job):
        """Waits for the job's last fact."""
        limit = time.monotonic() + JOB_SECONDS
        while (fact := self.s3.read(settings.key(job, "5-end.json"))) is None:
            self.living()
            if time.monotonic() > limit:
                last = "\n".join(self.s3.keys(settings.key(job, ""))[-20:])
                raise Wrong(f"{job} did not end within {JOB_SECONDS} s; its last keys:\n{last}")
            time.sleep(0.25)
        return json.loads(fact)

    def ledger(self, job):
        """The simulator's ledger lines of one job, as a file."""
        path = self.folder / f"{job}.ledger.jsonl"
        with open(settings.simulator_ledger(self.simulator_data), encoding="utf-8") as lines, \
                open(path, "w", encoding="utf-8") as out:
            out.writelines(line for line in lines if job in json.dumps(json.loads(line)["metadata"]))
        return path

    def judge(self, job, table, source, output_key):
        """Waits for the job's end; its output is right and each row was paid once. The number of rows."""
        fact = self.end(job)
        expect(fact.get("refusal") is None, f"{job} was refused: {fact.get('refusal')}")
        output = self.folder / job / ("answered" + "".join(source.suffixes))
        self.s3.get(output_key, output)
        try:
            return oracle.judge(input=str(source), output=str(output), template=tables.template(table), model="digest",
                                ledger=[str(self.ledger(job))])
        except oracle.Differences as found:
            raise Wrong(str(found)) from None

    def living(self):
        """Raises when a process has ended."""
        for name, process in self.processes.items():
            expect(process.poll() is None, f"{name} ended with {process.returncode}:\n{process.tail()}")

    def close(self):
        """Kills what still runs."""
        for process in self.processes.values():
            process.kill()


def produce(kafka, job_spec, form):
    """Asks for a job with a Kafka client that is not batchmill's."""
    from confluent_kafka import Producer
    headers, body = settings.event(form, job_spec)
    producer = Producer({**kafka.client(), "acks": "all"})
    failures = []
    producer.produce(settings.JOBS_TOPIC, body, key=job_spec["id"].encode(), headers=headers,
                     on_delivery=lambda error, _: failures.append(error) if error else None)
    expect(producer.flush(30) == 0 and not failures, f"the event was not taken: {failures}")


def topics(cluster):
    """`topics apply` makes the topics, and again changes nothing."""
    from confluent_kafka.admin import AdminClient
    cluster.call(settings.topics_words(settings.binary(), cluster.config()))
    cluster.call(settings.topics_words(settings.binary(), cluster.config()))
    admin = AdminClient(cluster.kafka.client())
    found = set(admin.list_topics(timeout=10).topics)
    expect(settings.JOBS_TOPIC in found, f"no {settings.JOBS_TOPIC} among {sorted(found)}")


def submit(cluster, job):
    """Asks for one of the jobs."""
    table, form, how = JOBS[job]
    source = tables.make(table, form, cluster.folder / job)
    return source, cluster.submit(job, table, source, how)


def job_is_right(cluster, job, source, output_key):
    """The job ends, its output is right, each row was paid once, and nothing but facts and data is in its folder."""
    rows = cluster.judge(job, JOBS[job][0], source, output_key)
    batches = len([key for key in cluster.s3.keys(settings.key(job, "4-results")) if key.endswith(".json")])
    expect(batches == -(-rows // 1000), f"{batches} batches for {rows} rows")
    print(f"     {job}: {rows} rows in {batches} batches, every one once, in order, unchanged, rightly answered", flush=True)


def status(cluster):
    """`status` knows an ended job."""
    said = cluster.call(settings.status_words(settings.binary(), "live-plain", cluster.config()))
    expect("58788" in said.replace(",", ""), f"no row count in:\n{said}")


def metrics(cluster):
    """Every service answers on its admin port."""
    for room, port in cluster.admin.items():
        for page in ("healthz", "readyz", "metrics"):
            expect(http_ok(f"http://127.0.0.1:{port}/{page}"), f"{room} has no /{page}")


def stop(cluster):
    """SIGTERM to all: each drains and exits 0."""
    cluster.living()
    for process in cluster.processes.values():
        process.ask_to_stop()
    end = time.monotonic() + STOP_SECONDS
    codes = {name: process.stopped(max(0.1, end - time.monotonic())) for name, process in cluster.processes.items()}
    wrong = {name: code for name, code in codes.items() if code != 0}
    expect(not wrong, "\n".join(f"{name} ended with {code} (None: not within {STOP_SECONDS} s)\n"
                                f"{cluster.processes[name].tail(1500)}" for name, code in wrong.items()))


def sdk(cluster):
    """The official OpenAI client, unmodified, against the simulator."""
    script = Path(__file__).parent / "openai_sdk.py"
    done = subprocess.run([sys.executable, script, f"http://127.0.0.1:{cluster.simulator_port}/v1"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    expect(done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:])


def run(checks, folder, kafka, s3):
    """All of it. After a failed start the rest can't pass: it is counted as failed without waiting for it."""
    Path(folder).mkdir(parents=True)
    cluster = Cluster(folder, kafka, s3)
    asked, chain = {}, Chain(checks)
    check = chain.run
    try:
        check("cluster: the simulator starts", cluster.start_simulator, needed=True)
        check("cluster: the official OpenAI client", sdk, cluster)
        check("cluster: topics apply", topics, cluster, needed=True)
        check("cluster: four services start", cluster.start_rooms, needed=True)
        for job, (_, _, how) in JOBS.items():
            check(f"cluster: {job} asked for ({how})", lambda job=job: asked.update({job: submit(cluster, job)}),
                  needed=True)
        for job, (table, form, _) in JOBS.items():
            check(f"cluster: {job} is right ({table}, {form})", lambda job=job: job_is_right(cluster, job, *asked[job]))
        check("cluster: status", status, cluster)
        check("cluster: admin ports", metrics, cluster)
        check("cluster: trace contexts in headers and logs", traces.headers_and_logs, cluster, list(JOBS))
        check("cluster: SIGTERM ends each with 0", stop, cluster)
        if not chain.broken:
            rescue.cluster(checks, cluster)
    finally:
        cluster.close()
