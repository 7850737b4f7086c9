"""compose/ on local processes: what `docker compose up` would run, run without an engine.

The commands, environments, settings files, health checks, dependencies and the Prometheus configuration are read from
compose.yaml (by Compose itself: `docker-compose config`) and from the image's Dockerfile; nothing of them is written down
here a second time.
What is replaced is what an engine would give each container, and no more:

- names and ports: `kafka:9092`, and within kafka `0.0.0.0:9092` and `localhost:9092`, become a free port of 127.0.0.1, in
  commands, environments and mounted files alike; Prometheus' look-up of a service by DNS becomes the list of its one process;
- paths: a mounted file becomes a copy of it, a volume becomes a folder;
- programs: the image's batchmill is the binary under test, `weed` the same SeaweedFS from the parts, Kafka's image is its own
  set-up class and broker from the parts, Prometheus is Debian's (older than the image's: the configuration must suit both);
- health checks of images that bring wget or Kafka's scripts are made from here.

Grafana and Kafka UI have no package to run: `tests/compose/check.py` looks at what they mount.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import observe
import oracle
import settings
from checks import Chain, Wrong, expect
from servers import PARTS, RECIPES, REPO, Process, free_port, http_ok, listens, wait_until

FOLDER = REPO / "compose"
NOT_HERE = {"grafana", "kafka-ui"}
# What each service listens on: numbers in its own texts, and behind its name in those of others.
LISTENS = {"kafka": [9092, 9093, 9094],
           "object-store": [9333, 19333, 8080, 18080, 8888, 18888, 8333, 18333],
           "simulator": [8089], "prometheus": [9090], **{room: [9090] for room in settings.ROOMS}}
READY_SECONDS = 90
STOP_SECONDS = 20


def compose_model():
    """compose.yaml as Compose reads it: anchors, merges and variables resolved, all profiles."""
    done = subprocess.run([PARTS / "deploy" / "bin" / "docker-compose", "--profile", "*", "-f", FOLDER / "compose.yaml", "config",
                           "--format", "json"], env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
                          capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"compose.yaml is refused:\n{done.stderr}")
    return json.loads(done.stdout)


def yaml_of(path):
    """A YAML file as Python's types."""
    program = "import json,sys,yaml; json.dump(yaml.safe_load(open(sys.argv[1], encoding='utf-8')), sys.stdout)"
    done = subprocess.run([PARTS / "deploy" / "bin" / "python", "-c", program, path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def readme_commands():
    """The shell lines of compose/README.md."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line]


class Stack:
    """The services of compose.yaml as processes."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.model = compose_model()
        self.services = self.model["services"]
        self.ports = {(name, port): free_port() for name, ports in LISTENS.items() for port in ports}
        self.processes, self.ended, self.healthy = {}, set(), set()
        dockerfile = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
        self.entrypoint = json.loads(re.findall(r"^ENTRYPOINT (\[.*\])$", dockerfile, re.MULTILINE)[-1])

    # ------------------------------------------------------------------------------------------------ what is replaced

    def local(self, name, text, paths=True):
        """A text of a service as it must read here."""
        text = text.replace("$$", "$")
        for (other, port), mine in self.ports.items():
            grpc = self.ports.get((other, port + 10000))
            text = re.sub(rf"(?<![\w.-]){other}:{port}(\.{port + 10000})?(?!\d)",
                          lambda found, mine=mine, grpc=grpc: f"127.0.0.1:{mine}" + (f".{grpc}" if found[1] else ""), text)
            if other == name:
                text = re.sub(rf"(?<![\w.-])(0\.0\.0\.0|localhost|127\.0\.0\.1):{port}(?!\d)", f"127.0.0.1:{mine}", text)
                text = re.sub(rf"(?<=port=){port}$|(?<=port\.grpc=){port}$", str(mine), text)
        text = re.sub(rf"=({name}|0\.0\.0\.0)$", "=127.0.0.1", text)
        if paths:
            for target, here in self.mounts(name).items():
                text = re.sub(rf"(?<![\w./-]){re.escape(target)}(?![\w-])", str(here), text)
            text = re.sub(r"(?<![\w./-])/usr/local/bin/batchmill(?![\w-])", str(settings.binary()), text)
            text = re.sub(r"(?<![\w./-])/usr/bin/weed(?![\w-])", str(PARTS / "venv" / "bin" / "weed"), text)
        return text

    def mounts(self, name):
        """Where a service's mounts lie here: target in the container, path."""
        found = {}
        for mount in self.services[name].get("volumes", []):
            here = self.home(name) / f"{mount['type']}-{mount['target'].strip('/').replace('/', '-')}"
            found[mount["target"]] = mount["source"] if os.path.isdir(mount.get("source", "")) else here
        return found

    def home(self, name):
        """A service's folder."""
        return self.folder / name

    def prepare(self, name):
        """Makes the volumes and copies the mounted files; a missing one is an error, as it is for an engine."""
        (self.home(name) / "root").mkdir(parents=True, exist_ok=True)
        for mount in self.services[name].get("volumes", []):
            here = Path(self.mounts(name)[mount["target"]])
            if mount["type"] == "volume":
                here.mkdir(exist_ok=True)
                continue
            expect(os.path.exists(mount["source"]), f"{name} mounts {mount['source']}, which is missing")
            if not here.is_dir():
                here.write_text(self.file(name, mount["source"]), encoding="utf-8")

    def file(self, name, source):
        """A mounted file's text as it must read here."""
        if Path(source).name == "prometheus.yml":
            return self.local(name, json.dumps(self.without_dns(yaml_of(source)), indent=1))
        return self.local(name, Path(source).read_text(encoding="utf-8"))

    def without_dns(self, config):
        """Each name that Prometheus would look up becomes the address of its process, with the label that relabelling expects."""
        for scrape in config["scrape_configs"]:
            for look_up in scrape.pop("dns_sd_configs", []):
                scrape.setdefault("static_configs", []).extend(
                    {"targets": [f"127.0.0.1:{self.ports[name, look_up['port']]}"], "labels": {"__meta_dns_name": name}}
                    for name in look_up["names"])
        return config

    def environment(self, name):
        """A service's environment, and nothing of this process's but the path to programs."""
        path = f"{PARTS / 'venv' / 'bin'}:{PARTS / 'prometheus' / 'usr' / 'bin'}:{os.environ['PATH']}"
        own = {key: self.local(name, str(value)) for key, value in (self.services[name].get("environment") or {}).items()
               if value is not None}
        return {"PATH": path, "HOME": str(self.home(name) / "root"), **own}

    def words(self, name, command=None):
        """A service's command line: its entry point, or its image's, and its command."""
        service = self.services[name]
        if name == "kafka":
            return self.kafka_words()
        if name == "prometheus":
            first = [PARTS / "prometheus" / "usr" / "bin" / "prometheus"]
        else:
            first = service.get("entrypoint") or self.entrypoint
        return [self.local(name, str(word)) for word in [*first, *(command or service.get("command") or [])]]

    def kafka_words(self):
        """As Kafka's image: its set-up class turns the environment into settings and formats the disk; then the broker starts."""
        home = self.home("kafka")
        environment = self.environment("kafka")
        for folder in ("default", "mounted", "final"):
            (home / folder).mkdir(exist_ok=True)
        for name in ("log4j2.yaml", "tools-log4j2.yaml"):
            shutil.copy(RECIPES / "log4j2.yaml", home / "default" / name)
        (home / "default" / "server.properties").write_text("", encoding="utf-8")
        java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *environment["KAFKA_HEAP_OPTS"].split()]
        classes = ["-cp", f"{PARTS / 'kafka' / 'libs'}/*"]
        folders = [word for kind in ("default", "mounted", "final") for word in (f"--{kind}-configs-dir", home / kind)]
        done = subprocess.run([*java, *classes, "kafka.docker.KafkaDockerWrapper", "setup", *folders], env=environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"Kafka's set-up ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return [*java, f"-Dlog4j2.configurationFile={home / 'final' / 'log4j2.yaml'}", *classes, "kafka.Kafka",
                home / "final" / "server.properties"]

    # ------------------------------------------------------------------------------------------------ what Compose does

    def order(self):
        """The services that `up` starts, each after those that it depends on."""
        wanted = [name for name, service in self.services.items() if not service.get("profiles") and name not in NOT_HERE]
        done = []
        while wanted:
            ready = [name for name in wanted if set(self.services[name].get("depends_on") or {}) <= set(done)]
            expect(ready, f"depends_on goes in a circle: {wanted}")
            done += ready
            wanted = [name for name in wanted if name not in ready]
        return done

    def up(self):
        """`docker compose up --detach`: starts each service once what it depends on is healthy, or has ended well."""
        for name in self.order():
            for other, needs in (self.services[name].get("depends_on") or {}).items():
                if needs["condition"] == "service_healthy":
                    self.wait_healthy(other)
                elif needs["condition"] == "service_completed_successfully":
                    self.wait_ended(other)
            self.start(name)
        for name in self.processes:
            if name not in self.ended and not self.is_once(name):
                self.wait_healthy(name)

    def start(self, name):
        """Starts one service, in an empty folder, since its root is read-only."""
        self.prepare(name)
        self.processes[name] = Process(name, self.words(name), self.home(name) / "log.txt", env=self.environment(name),
                                       cwd=self.home(name) / "root")

    def is_once(self, name):
        """Whether the service ends by itself."""
        return self.services[name].get("restart") == "no"

    def wait_healthy(self, name):
        """Waits for a service's health check."""
        if name not in self.healthy:
            process = self.processes[name]
            try:
                wait_until(lambda: self.is_healthy(name), f"{name} is not healthy", READY_SECONDS, every=0.2, alive=process)
            except Exception as error:
                raise Wrong(f"{error}\n{process.tail()}") from None
            self.healthy.add(name)

    def is_healthy(self, name):
        """One health check."""
        test = self.services[name]["healthcheck"]["test"]
        expect(test[0] == "CMD", f"{name}: a health check that needs a shell: {test}")
        program = Path(test[1]).name
        if program == "batchmill":
            return subprocess.run([self.local(name, word) for word in test[1:]], env=self.environment(name),
                                  capture_output=True, timeout=10, check=False).returncode == 0
        if program == "wget":
            return http_ok(self.local(name, test[-1]))
        expect(program == "kafka-broker-api-versions.sh", f"{name}: an unknown health check: {test}")
        from confluent_kafka import KafkaException  # in the parts' environment only
        from confluent_kafka.admin import AdminClient
        address = self.local(name, test[-1])
        if not listens(int(address.rpartition(":")[2])):
            return False
        try:
            return bool(AdminClient({"bootstrap.servers": address}).list_topics(timeout=3).brokers)
        except KafkaException:
            return False

    def wait_ended(self, name):
        """Waits until a one-shot service has ended well."""
        if name not in self.ended:
            process = self.processes[name]
            code = process.stopped(60)
            expect(code == 0, f"{name} ended with {code}:\n{process.tail()}")
            self.ended.add(name)

    def again(self):
        """A second `up` runs the one-shot services again: they must find nothing to do."""
        for name in sorted(self.ended):
            self.ended.discard(name)
            self.start(name)
            self.wait_ended(name)

    def run(self, name, command):
        """`docker compose run --rm NAME COMMAND…`."""
        self.prepare(name)
        done = subprocess.run(self.words(name, command), env=self.environment(name), cwd=self.home(name) / "root",
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
        expect(done.returncode == 0, f"{name} {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")

    def published(self, text):
        """An address of this machine, as `ports` publishes it."""
        for name, service in self.services.items():
            for port in service.get("ports", []):
                here = self.ports.get((name, port["target"]))
                text = re.sub(rf"localhost:{port['published']}(?!\d)", f"127.0.0.1:{here}", text)
        return text

    def down(self):
        """`docker compose down`: SIGTERM to what is ours: it ends with 0 in time and wrote nothing outside its mounts."""
        ours = [name for name in [*settings.ROOMS, "simulator", "prometheus"] if name in self.processes]
        for name in ours:
            expect(self.processes[name].poll() is None, f"{name} ended with {self.processes[name].returncode}:\n"
                                                        f"{self.processes[name].tail()}")
        for name in ours:
            self.processes[name].ask_to_stop()
        end = time.monotonic() + STOP_SECONDS
        codes = {name: self.processes[name].stopped(max(0.1, end - time.monotonic())) for name in ours}
        expect(not any(codes.values()) and None not in codes.values(), f"exit codes: {codes}")
        for name in [*settings.ROOMS, "simulator", "topics"]:
            strays = [str(path) for path in (self.home(name) / "root").rglob("*")]
            expect(not strays, f"{name} wrote outside of its mounts: {strays}")

    def close(self):
        """Kills what still runs, and removes the sockets that SeaweedFS leaves in the temporary folder."""
        for process in self.processes.values():
            process.kill()
        for port in (port for (name, _), port in self.ports.items() if name == "object-store"):
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)


class Prometheus:
    """The questions to the Prometheus of the stack."""

    def __init__(self, stack):
        self.url = f"http://127.0.0.1:{stack.ports['prometheus', 9090]}/api/v1"

    def get(self, path, **parameters):
        """What the API answers."""
        with urllib.request.urlopen(f"{self.url}/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as reply:
            return json.load(reply)["data"]

    def query(self, text):
        """The series that a query finds: labels and value."""
        return [(found["metric"], float(found["value"][1])) for found in self.get("query", query=text)["result"]]


def as_the_readme_says(stack, folder):
    """Runs the README's commands: `up` is done, `curl` goes to the published ports, `run` to the command. The oracle judges."""
    lines = [shlex.split(line) for line in readme_commands()]
    expect(lines and lines[0][:3] == ["docker", "compose", "up"], "the README does not begin with docker compose up")
    template = source = output = None
    for words in lines[1:]:
        if words[0] == "curl":
            words = [stack.published(word) for word in words]
            if "-T" in words:
                source = words[words.index("-T") + 1] = (FOLDER / words[words.index("-T") + 1]).resolve()
            if "-o" in words:
                output = words[words.index("-o") + 1] = Path(folder) / words[words.index("-o") + 1]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            expect(done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
            continue
        expect(words[:4] == ["docker", "compose", "run", "--rm"], f"a command that is not known here: {words}")
        if "--template" in words:
            template = words[words.index("--template") + 1]
        stack.run(words[4], words[5:])
    expect(template and source and output, "the README's commands upload, submit and download nothing")
    try:
        rows = oracle.judge(input=str(source), output=str(output), template=template, model="digest",
                            ledger=[str(stack.mounts("simulator")["/data"] / "ledger.jsonl")])
    except oracle.Differences as found:
        raise Wrong(str(found)) from None
    print(f"     {rows} rows, every one once, in order, unchanged, rightly answered", flush=True)


def everything_is_scraped(stack):
    """Each service is up and has our metrics, under the labels that dashboards and alerts use; the rules load."""
    prometheus = Prometheus(stack)

    def scraped():
        up = {labels.get("service"): value for labels, value in prometheus.query('up{job="batchmill"}')}
        ours = 'count by (service) ({__name__=~"batchmill_.+",job="batchmill"})'
        have = {labels.get("service") for labels, _ in prometheus.query(ours)}
        return up == dict.fromkeys(settings.ROOMS, 1.0) and have == set(settings.ROOMS)
    wait_until(scraped, "Prometheus does not see all four services up", 30, every=0.5)
    expect([value for _, value in prometheus.query('up{job="prometheus"}')] == [1.0], "Prometheus does not see itself")
    ill = [rule["name"] for group in prometheus.get("rules")["groups"] for rule in group["rules"] if rule["health"] == "err"]
    expect(not ill, f"rules that fail: {ill}")
    files = {Path(group["file"]).name for group in prometheus.get("rules")["groups"]}
    expect(files == {path.name for path in (FOLDER / "prometheus" / "rules").glob("*.yml")}, f"rule files loaded: {files}")


def scaler_has_a_number(stack):
    """The query by which KEDA scales the poller finds one number on live data."""
    query = yaml_of(FOLDER / "kubernetes" / "batchmill" / "values.yaml")["autoscaling"]["prometheus"]["query"]
    prometheus = Prometheus(stack)
    wait_until(lambda: len(prometheus.query(query)) == 1, f"not one number for {query}", 30, every=0.5)


def run(checks, folder):
    """All of it."""
    stack = Stack(folder)
    check = Chain(checks).run
    try:
        check("compose: up", stack.up, needed=True)
        check("compose: up again finds topics and buckets there", stack.again)
        check("compose: the README's commands", as_the_readme_says, stack, folder)
        check("compose: Prometheus sees all services", everything_is_scraped, stack)
        check("compose: the poller's scaler has a number", scaler_has_a_number, stack)
        check("compose: every panel and alert finds its data", observe.ask, Prometheus(stack))
        check("compose: down", stack.down)
    finally:
        stack.close()
