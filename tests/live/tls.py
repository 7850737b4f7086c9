"""Kafka over TLS with a password (SASL SCRAM-SHA-256), with a build that has it (`--features tls`).

The broker has no other way in for clients, and it talks to itself that way too. Its certificate is made here, by the JDK's
keytool, for the name `localhost` and nothing else. What is right: a whole job, asked for by a foreign client and by
`submit`. What is wrong: the password, the authority, and the host's name; each time the operator is told what to look at.
"""

import json
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from string import Template

import cluster
import settings
from checks import Chain, expect
from servers import PARTS, RECIPES, Kafka, free_port, http_ok, wait_until

JOBS = ["live-plain", "live-submit"]
USER = "batchmill"
PASSWORD_VARIABLE = "BATCHMILL__KAFKA__PROPERTIES__SASL_PASSWORD"
CLUSTER_ID = "aEAFnkGXT9y7ecti2sapJg"
JAVA_SMALL = ["java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
NOT_CERTIFIED = "certificate verify failed"
END_SECONDS = 60


def command(*words):
    """Runs a tool to its end; its output is shown when it fails."""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    expect(done.returncode == 0, f"{words[0]} {words[1]} ended with {done.returncode}:\n{done.stdout[-3000:]}")


class Authority:
    """A certificate authority of a test: its certificate in `pem`."""

    def __init__(self, folder, name):
        self.password, self.store, self.pem = secrets.token_hex(16), folder / f"{name}.p12", folder / f"{name}.pem"
        self._keytool(self.store, "-genkeypair", "-alias", name, "-dname", f"CN={name}", "-ext", "bc:critical=ca:true",
                      "-ext", "ku:critical=keyCertSign,cRLSign")
        self._keytool(self.store, "-exportcert", "-alias", name, "-rfc", "-file", self.pem)
        self.name = name

    def _keytool(self, store, order, *words):
        kind = ["-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2"] if order == "-genkeypair" else []
        command("keytool", order, *words, *kind, "-storetype", "PKCS12", "-keystore", store, "-storepass", self.password)

    def keys(self, folder, host):
        """A key store with a key and a certificate for a host's DNS name; its password is the authority's."""
        store, request, answer = folder / f"{host}.p12", folder / f"{host}.csr", folder / f"{host}.pem"
        self._keytool(store, "-genkeypair", "-alias", host, "-dname", f"CN={host}")
        self._keytool(store, "-certreq", "-alias", host, "-file", request)
        self._keytool(self.store, "-gencert", "-alias", self.name, "-infile", request, "-outfile", answer, "-rfc",
                      "-ext", f"san=dns:{host}", "-ext", "eku=serverAuth,clientAuth", "-validity", "2")
        self._keytool(store, "-importcert", "-alias", self.name, "-file", self.pem, "-noprompt")
        self._keytool(store, "-importcert", "-alias", host, "-file", answer, "-noprompt")
        return store


class SecureKafka(Kafka):
    """One KRaft node that clients reach over SASL_SSL only."""

    name = "kafka-tls"

    def __init__(self, folder):
        super().__init__(folder)
        self.authority = Authority(self.folder, "ca")
        self.keys = self.authority.keys(self.folder, "localhost")
        self.password = secrets.token_hex(16)

    def choose_ports(self):
        """A log folder of its own, since users' passwords are set when it is formatted."""
        self.port, self.controller_port = free_port(), free_port()
        data, written = self.folder / "data", self.folder / "server.properties"
        shutil.rmtree(data, ignore_errors=True)
        values = {"port": self.port, "controller_port": self.controller_port, "data": data, "keys": self.keys,
                  "ca": self.authority.pem, "password": self.authority.password}
        recipes = [(RECIPES / name).read_text(encoding="utf-8") for name in ("server.properties.in", "tls.properties.in")]
        written.write_text(Template("".join(recipes)).substitute(values), encoding="utf-8")
        users = [(USER, self.password), ("broker", self.authority.password)]
        command(*JAVA_SMALL, f"-Dlog4j2.configurationFile={RECIPES / 'log4j2.yaml'}", "-cp",
                f"{PARTS / 'kafka' / 'libs'}/*", "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", written,
                *(word for name, password in users
                  for word in ("--add-scram", f"SCRAM-SHA-256=[name={name},password={password}]")))

    @property
    def brokers(self):
        """By the name that is in the certificate."""
        return f"localhost:{self.port}"

    def properties(self, authority=None):
        """What a client needs but for the password."""
        return {"security.protocol": "sasl_ssl", "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": USER,
                "ssl.ca.location": str((authority or self.authority).pem)}

    def client(self):
        return {**super().client(), **self.properties(), "sasl.password": self.password}


class SecureCluster(cluster.Cluster):
    """The processes, told how to reach the broker: properties in the settings file, the password in a file of its own."""

    def __init__(self, folder, kafka, s3):
        super().__init__(folder, kafka, s3)
        self.password_file = self.folder / "password"
        self.password_file.write_text(kafka.password + "\n", encoding="utf-8")
        self.environment.pop(PASSWORD_VARIABLE, None)
        self.environment[f"{PASSWORD_VARIABLE}_FILE"] = str(self.password_file)
        for path in self.configs.values():
            # The client's own words on each connection: they must not hold the password either.
            secure(path, {**kafka.properties(), "debug": "security"}, 'filter = "info,kafka=debug"')

    def refused(self, words, environment):
        """Runs a command that must fail; what it says."""
        began = time.monotonic()
        done = subprocess.run([str(word) for word in words], env=environment, cwd=self.folder, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=END_SECONDS, check=False)
        (self.folder / f"refused-{time.monotonic_ns()}.log").write_text(done.stdout, encoding="utf-8")
        expect(done.returncode == 1, f"it ended with {done.returncode}:\n{done.stdout[-3000:]}")
        print(f"     `{' '.join(map(str, words[1:3]))}` after {time.monotonic() - began:.0f} s: "
              f"{done.stdout.strip().splitlines()[-1]}", flush=True)
        return done.stdout


def secure(path, properties, log=""):
    """Adds Kafka's properties to a settings file, and what else is to be logged."""
    lines = "".join(f'"{name}" = "{value}"\n' for name, value in properties.items())
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"\n[kafka.properties]\n{lines}" + (f"\n[log]\n{log}\n" if log else ""))


def wrong_config(mill, name, brokers, authority):
    """A settings file that is wrong in one thing."""
    folder = mill.folder / name
    folder.mkdir()
    port = free_port()
    path = settings.config(folder, "splitter", mill.kafka, mill.s3, f"http://127.0.0.1:{mill.simulator_port}", port)
    path.write_text(path.read_text(encoding="utf-8").replace(mill.kafka.brokers, brokers), encoding="utf-8")
    secure(path, mill.kafka.properties(authority))
    return path, port


def shown(mill):
    """`config show` names the password's file, and shows three stars for what is in it."""
    said = mill.call(settings.config_show_words(settings.binary(), mill.config()))
    lines = [line for line in said.splitlines() if "sasl.password" in line]
    expect(len(lines) == 1 and "***" in lines[0] and str(mill.password_file) in lines[0], f"it shows {lines}")
    expect(mill.kafka.password not in said, "it shows the password")


def kerberos(mill):
    """A mechanism that no build has is refused at once, with those that there are."""
    words = settings.topics_words(settings.binary(), mill.config())
    said = mill.refused([*words, "--set", "kafka.properties.sasl.mechanism=GSSAPI"], mill.environment)
    expect("`sasl.mechanism`" in said and "SCRAM" in said, f"it does not say what there is:\n{said[-3000:]}")


def wrong_password(mill):
    """A command and a service both end, and say that it is the name or the password."""
    environment = {**mill.environment, PASSWORD_VARIABLE: f"not-{mill.kafka.password}"}
    del environment[f"{PASSWORD_VARIABLE}_FILE"]
    path, _ = wrong_config(mill, "wrong-password", mill.kafka.brokers, None)
    job = mill.folder / "never.json"
    job.write_text(json.dumps(settings.spec("never", "in/never.csv", "out/never.csv", "{{ title }}")), encoding="utf-8")
    for words in (settings.topics_words(settings.binary(), path), settings.room_words(settings.binary(), "splitter", path),
                  settings.submit_words(settings.binary(), job, path)):
        said = mill.refused(words, environment)
        expect("Authentication failed" in said, f"it does not say what is wrong:\n{said[-3000:]}")
        expect("kafka.properties" in said.strip().splitlines()[-1], f"it does not say where to look:\n{said[-3000:]}")
    expect(mill.s3.read(f"{settings.PREFIX}/open/never") is None, "a job was left behind that nobody was told of")


def not_certified(mill, name, brokers, authority):
    """A command ends. A service goes on trying (a certificate may be mended at the broker), is not ready, and says why.

    The client can't tell an authority from a host's name, so it says which broker it asked, and both reasons.
    """
    words = [NOT_CERTIFIED, f"sasl_ssl://{brokers}", "ssl.ca.location", "not for the host"]
    path, port = wrong_config(mill, name, brokers, authority)
    said = mill.refused(settings.topics_words(settings.binary(), path), mill.environment)
    expect(all(word in said for word in words), f"it does not say what is wrong:\n{said[-3000:]}")
    mill.launch(name, settings.room_words(settings.binary(), "splitter", path))
    process = mill.processes.pop(name)
    try:
        wait_until(lambda: NOT_CERTIFIED in process.tail(1_000_000), "the log says nothing of the certificate",
                           END_SECONDS, alive=process)
        expect(all(word in process.tail(1_000_000) for word in words), f"the log does not say why:\n{process.tail()}")
        expect(not http_ok(f"http://127.0.0.1:{port}/readyz"), "it says that it is ready")
        expect(process.poll() is None, f"it ended with {process.returncode}:\n{process.tail()}")
    finally:
        process.kill()


def unseen(mill):
    """The password is in no file of the test but the one that is meant for it: no log, no object, no broker's log."""
    password, found = mill.kafka.password.encode(), []
    for path in mill.folder.parent.rglob("*"):
        if path.is_file() and path != mill.password_file and password in path.read_bytes():
            found.append(str(path))
    expect(not found, f"the password is in {found}")
    expect(password in mill.password_file.read_bytes(), "the password was not looked for")
    logs = [path for path in mill.folder.rglob("*.log") if b"SASL" in path.read_bytes()]
    expect(len(logs) >= len(settings.ROOMS), f"only {len(logs)} logs speak of SASL at all")


def run(checks, folder, kafka, s3):
    """All of it. After a failed start the rest can't pass: it is counted as failed without waiting for it."""
    Path(folder).mkdir(parents=True)
    mill = SecureCluster(folder, kafka, s3)
    stranger = Authority(mill.folder, "stranger")
    asked = {}
    check = Chain(checks).run
    try:
        check("tls: the simulator starts", mill.start_simulator, needed=True)
        check("tls: topics apply", cluster.topics, mill, needed=True)
        check("tls: config show", shown, mill)
        check("tls: four services start", mill.start_rooms, needed=True)
        for job in JOBS:
            check(f"tls: {job} asked for ({cluster.JOBS[job][2]})",
                  lambda job=job: asked.update({job: cluster.submit(mill, job)}), needed=True)
        for job in JOBS:
            check(f"tls: {job} is right", lambda job=job: cluster.job_is_right(mill, job, *asked[job]))
        check("tls: status", cluster.status, mill)
        check("tls: Kerberos is refused at once", kerberos, mill)
        check("tls: a wrong password ends commands and services", wrong_password, mill)
        check("tls: a stranger's certificate is not trusted", not_certified, mill, "wrong-authority", kafka.brokers,
              stranger)
        check("tls: a certificate for another host is not trusted", not_certified, mill, "wrong-host",
              f"127.0.0.1:{kafka.port}", None)
        check("tls: the services never stopped; SIGTERM ends each with 0", cluster.stop, mill)
        check("tls: the password is in no log and no object", unseen, mill)
    finally:
        mill.close()
