"""Real servers for the tests: Apache Kafka (one KRaft node) and SeaweedFS S3.

    with Kafka(folder) as kafka, S3(folder, bucket="lake") as s3:
        kafka.brokers, s3.endpoint

Each listens on 127.0.0.1 on free ports below 32768 (above, an outgoing connection may hold the number), is ended by
its own process id, and may be killed and started again on its data. Logs lie in the folder; it is the caller's to keep
or to remove.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from string import Template

REPO = Path(__file__).resolve().parents[2]
PARTS = Path(os.environ.get("BATCHMILL_PARTS") or REPO / ".parts").absolute()
RECIPES = REPO / "tests" / "parts"
ACCESS_KEY, SECRET_KEY, REGION = "testkey", "testsecret", "us-east-1"
START_SECONDS = 90


class Unready(Exception):
    """A server that did not come up; the message names its log."""


_given = set()


def free_port():
    """A port below 32768 that could be bound a moment ago and that this process hasn't given out before."""
    for _ in range(1000):
        port = random.randrange(20000, 32000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise Unready("no free port between 20000 and 32000")


def wait_until(true, what, seconds, every=0.05, alive=None):
    """Waits until `true()`; raises Unready after so many seconds, or at once when the process `alive` has ended."""
    end = time.monotonic() + seconds
    while not true():
        if alive is not None and alive.poll() is not None:
            raise Unready(f"{what}: the process ended with {alive.returncode}")
        if time.monotonic() > end:
            raise Unready(f"{what}: not within {seconds} s")
        time.sleep(every)


def listens(port):
    """Whether something accepts connections at the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def http_ok(url):
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


class Process:
    """A child process with a log file: started, ended and killed by its own id."""

    def __init__(self, name, words, log, env=None, cwd=None):
        self.name, self.log = name, Path(log)
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          env=env, cwd=cwd)

    def poll(self):
        """The exit code, or None while it runs."""
        return self.child.poll()

    @property
    def returncode(self):
        """The exit code, once `poll` or a wait has seen it."""
        return self.child.returncode

    @property
    def pid(self):
        """The process id."""
        return self.child.pid

    def kill(self):
        """SIGKILL, and waits."""
        if self.child.poll() is None:
            self.child.kill()
        return self.child.wait()

    def ask_to_stop(self):
        """SIGTERM, once: a second one tells a service to exit at once."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)

    def stopped(self, seconds):
        """The exit code, or None when it had to be killed after so many seconds."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def tail(self, characters=3000):
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]


class Server:
    """What the servers share: start with one more try on other ports, kill, restart on the same data."""

    name = "server"

    def __init__(self, folder):
        self.folder = Path(folder) / self.name
        self.folder.mkdir(parents=True)
        self.process = None
        self.restarts = 0

    def choose_ports(self):
        """Picks the ports; called again when the first choice was taken meanwhile."""
        raise NotImplementedError

    def words(self):
        """The command line."""
        raise NotImplementedError

    def ready(self):
        """Whether it serves."""
        raise NotImplementedError

    def start(self):
        """Starts on fresh data and waits until it serves."""
        self.choose_ports()
        try:
            self._launch()
        except Unready:
            log = self.process.tail(200_000)
            self.kill()
            if "already in use" not in log:
                raise
            self.choose_ports()
            self._launch()
        return self

    def _launch(self):
        self.process = Process(self.name, self.words(), self.folder / "log.txt")
        try:
            wait_until(self.ready, f"{self.name} is not ready, see {self.process.log}", START_SECONDS,
                       alive=self.process)
        except Unready as error:
            raise Unready(f"{error}\n{self.process.tail()}") from None

    def kill(self):
        """SIGKILL: what a power cut does."""
        if self.process is not None:
            self.process.kill()

    def restart(self):
        """Starts again on the same data and ports, after `kill`."""
        self.restarts += 1
        self._launch()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_):
        self.kill()


class Kafka(Server):
    """One KRaft node: broker and controller in a JVM of 128 MB."""

    name = "kafka"

    def choose_ports(self):
        self.port, self.controller_port = free_port(), free_port()
        data = self.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(PARTS / "kafka" / "template", data)
        settings = Template((RECIPES / "server.properties.in").read_text(encoding="utf-8"))
        (self.folder / "server.properties").write_text(
            settings.substitute(port=self.port, controller_port=self.controller_port, data=data), encoding="utf-8")

    @property
    def brokers(self):
        """What clients call bootstrap servers."""
        return f"127.0.0.1:{self.port}"

    def client(self):
        """The settings of a client in the terms of librdkafka."""
        return {"bootstrap.servers": self.brokers}

    def words(self):
        return ["java", "-Xms128m", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                "-XX:+ExitOnOutOfMemoryError", f"-Dlog4j2.configurationFile={RECIPES / 'log4j2.yaml'}",
                "-cp", f"{PARTS / 'kafka' / 'libs'}/*", "kafka.Kafka", self.folder / "server.properties"]

    def ready(self):
        said = self.process.log.read_text(encoding="utf-8", errors="replace").count("Kafka Server started")
        return said > self.restarts and listens(self.port)

    def start(self):
        super().start()
        self.warm()
        return self

    def warm(self):
        """Makes the broker's own topics: the first group join and the first idempotent producer are slow."""
        from confluent_kafka import Consumer, Producer  # in the parts' environment only
        from confluent_kafka.admin import AdminClient, NewTopic
        topic = "warm-up"
        admin = AdminClient(self.client())
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
        producer = Producer({**self.client(), "enable.idempotence": True})
        producer.produce(topic, b"x")
        if producer.flush(30):
            raise Unready(f"kafka took no record, see {self.process.log}")
        consumer = Consumer({**self.client(), "group.id": "warm-up", "auto.offset.reset": "earliest",
                             "enable.auto.commit": False})
        try:
            consumer.subscribe([topic])
            end = time.monotonic() + 30
            record = None
            while record is None or record.error():
                if time.monotonic() > end:
                    raise Unready(f"kafka let no group join, see {self.process.log}")
                record = consumer.poll(0.2)
            consumer.commit(record, asynchronous=False)
        finally:
            consumer.close()


class S3(Server):
    """SeaweedFS with one identity and one bucket. It is always killed: its orderly stop takes 20 s and gains nothing."""

    name = "s3"

    def __init__(self, folder, bucket="lake"):
        super().__init__(folder)
        self.bucket = bucket

    def choose_ports(self):
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        (self.folder / "data").mkdir()
        self.ports = {name: free_port() for name in
                      ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")}
        (self.folder / "identities.json").write_text(
            '{"identities":[{"name":"test","credentials":[{"accessKey":"%s","secretKey":"%s"}],'
            '"actions":["Admin","Read","List","Tagging","Write"]}]}' % (ACCESS_KEY, SECRET_KEY), encoding="utf-8")

    @property
    def endpoint(self):
        """The S3 endpoint's URL."""
        return f"http://127.0.0.1:{self.ports['s3']}"

    def words(self):
        p = self.ports
        return [PARTS / "venv" / "bin" / "weed", "-logtostderr=true", "server", f"-dir={self.folder / 'data'}",
                "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                f"-master.port={p['master']}", f"-master.port.grpc={p['master.grpc']}", "-master.telemetry=false",
                "-master.volumeSizeLimitMB=64", "-master.electionTimeout=1s",
                f"-volume.port={p['volume']}", f"-volume.port.grpc={p['volume.grpc']}", "-volume.max=50",
                "-volume.minFreeSpace=1", "-volume.preStopSeconds=0",
                "-filer", f"-filer.port={p['filer']}", f"-filer.port.grpc={p['filer.grpc']}",
                f"-filer.localSocket={self.folder / 'filer.sock'}",
                "-s3", f"-s3.port={p['s3']}", f"-s3.port.grpc={p['s3.grpc']}", "-s3.port.iceberg=0",
                "-s3.port.lance=0", f"-s3.config={self.folder / 'identities.json'}", "-s3.autoCreateBucket=false",
                "-s3.iam=false", f"-s3.localSocket={self.folder / 's3.sock'}", "-metricsPort=0"]

    def ready(self):
        return http_ok(f"{self.endpoint}/healthz")

    def start(self):
        super().start()
        wait_until(self._make_bucket, f"no bucket could be made, see {self.process.log}", 30, every=0.25,
                   alive=self.process)
        return self

    def _make_bucket(self):
        """PUT of the bucket, signed, and one small object: the first write after a start may be refused."""
        with contextlib.suppress(OSError):
            files = self.files()
            files.create_dir(self.bucket)
            with files.open_output_stream(f"{self.bucket}/.ready") as out:
                out.write(b"1")
            files.delete_file(f"{self.bucket}/.ready")
            return True
        return False

    def files(self):
        """A client that is not batchmill's: pyarrow's S3 file system; paths are `bucket/key`."""
        from pyarrow import fs  # in the parts' environment only
        return fs.S3FileSystem(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, scheme="http",
                               endpoint_override=f"127.0.0.1:{self.ports['s3']}", allow_bucket_creation=True,
                               request_timeout=30, connect_timeout=5)

    def put(self, key, path):
        """Uploads a file as it is (by default pyarrow compresses what is called `.gz`)."""
        with open(path, "rb") as source, self.files().open_output_stream(f"{self.bucket}/{key}", compression=None) as out:
            shutil.copyfileobj(source, out, 1 << 20)

    def get(self, key, path):
        """Downloads an object as it is."""
        with self.files().open_input_stream(f"{self.bucket}/{key}", compression=None) as source, open(path, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)

    def read(self, key):
        """An object's bytes, or None when there is none."""
        try:
            with self.files().open_input_stream(f"{self.bucket}/{key}", compression=None) as source:
                return source.read()
        except FileNotFoundError:
            return None
        except OSError as error:  # removed between the two requests that pyarrow makes
            if "RESOURCE_NOT_FOUND" in str(error):
                return None
            raise

    def keys(self, prefix):
        """The keys under a prefix that ends at a `/`."""
        from pyarrow import fs
        wanted = fs.FileSelector(f"{self.bucket}/{prefix.rstrip('/')}", recursive=True, allow_not_found=True)
        return sorted(info.path[len(self.bucket) + 1:] for info in self.files().get_file_info(wanted)
                      if info.type == fs.FileType.File)

    def environment(self):
        """The credentials as the environment variables that S3 clients read."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION}
