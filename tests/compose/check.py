#!/usr/bin/env python3
"""What can be said of compose/ without running it. No servers, no network, some seconds:

    .parts/deploy/bin/python tests/compose/check.py

It needs the parts (`tests/parts/fetch`) and a built batchmill ($BATCHMILL_BIN, or the debug build).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "live"))

import settings  # noqa: E402

COMPOSE = REPO / "compose"
PARTS = Path(os.environ.get("BATCHMILL_PARTS") or REPO / ".parts").absolute()
BARE = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
# A tag of distroless that follows Debian's security updates: there is no other, the release is in the image's name.
MOVING = {"gcr.io/distroless/cc-debian13:nonroot"}
SECRET = re.compile(r"(api_?key|password|passphrase|secret|token)", re.IGNORECASE)


def call(*words, env=None, cwd=REPO):
    """Runs a command; the finished process."""
    return subprocess.run([str(word) for word in words], env=BARE if env is None else env, cwd=cwd, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)


def config_check(text, **environment):
    """What `config check` says to settings: exit code and stderr."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        done = call(settings.binary(), "config", "check", "--config", file.name, env={**BARE, **environment})
    return done.returncode, done.stdout + done.stderr


def pinned(image):
    """Whether an image has a tag with a version, or a digest."""
    if "@sha256:" in image or image in MOVING:
        return True
    tag = image.rpartition("/")[2].partition(":")[2]
    return bool(re.match(r"v?\d+\.\d+", tag))


def workspace():
    """The workspace's version and Rust."""
    return tomllib.loads((REPO / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]


class Compose(unittest.TestCase):
    """compose.yaml."""

    @classmethod
    def setUpClass(cls):
        done = call(PARTS / "deploy" / "bin" / "docker-compose", "--profile", "*", "-f", COMPOSE / "compose.yaml", "config",
                    "--format", "json")
        assert done.returncode == 0, done.stderr
        cls.services = json.loads(done.stdout)["services"]
        cls.once = {name for name, service in cls.services.items() if service.get("restart") == "no"}

    def test_it_fits_the_schema_of_the_compose_specification(self):
        tool = PARTS / "venv" / "bin" / "check-jsonschema"
        done = call(tool, "--builtin-schema", "vendor.compose-spec", COMPOSE / "compose.yaml")
        self.assertEqual(done.returncode, 0, done.stdout)
        wrong = (COMPOSE / "compose.yaml").read_text(encoding="utf-8").replace("healthcheck:", "heathcheck:")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "compose.yaml"
            file.write_text(wrong, encoding="utf-8")
            self.assertNotEqual(call(tool, "--builtin-schema", "vendor.compose-spec", file).returncode, 0)

    def test_up_starts_all_that_the_readme_names(self):
        started = {name for name, service in self.services.items() if not service.get("profiles")}
        self.assertEqual(started, {"kafka", "topics", "object-store", "buckets", "simulator", *settings.ROOMS, "prometheus",
                                   "grafana"})

    def test_each_image_is_pinned_and_ours_has_our_version(self):
        version = workspace()["version"]
        for name, service in self.services.items():
            self.assertTrue(pinned(service["image"]), f"{name}: {service['image']}")
            if "build" in service:
                self.assertEqual(service["image"], f"batchmill:{version}", name)
        for image in ["batchmill", "batchmill:latest", "grafana/grafana:main", "prom/prometheus:v3"]:
            self.assertFalse(pinned(image), image)

    def test_each_mounted_file_is_there(self):
        mounts = [(name, mount) for name, service in self.services.items() for mount in service.get("volumes", [])
                  if mount["type"] == "bind"]
        self.assertTrue(mounts)
        for name, mount in mounts:
            self.assertTrue(Path(mount["source"]).exists(), f"{name} mounts {mount['source']}")
            self.assertTrue(mount.get("read_only"), f"{name} may write to {mount['source']}")

    def test_each_service_has_a_health_check_or_ends_by_itself(self):
        for name, service in self.services.items():
            check = service.get("healthcheck", {})
            if name in self.once:
                self.assertTrue(check.get("disable"), f"{name} ends by itself: the image's health check does not suit it")
            else:
                self.assertEqual(check["test"][0], "CMD", name)
                self.assertEqual(service["restart"], "unless-stopped", name)

    def test_who_depends_waits_for_health_or_for_the_end(self):
        for name, service in self.services.items():
            for other, needs in (service.get("depends_on") or {}).items():
                wanted = "service_completed_successfully" if other in self.once else "service_healthy"
                self.assertEqual(needs["condition"], wanted, f"{name} on {other}")
        for room in settings.ROOMS:
            self.assertEqual(set(self.services[room]["depends_on"]), {"topics", "buckets", "simulator"})

    def test_ports_are_open_to_this_machine_alone_and_scaled_services_have_none(self):
        for name, service in self.services.items():
            for port in service.get("ports", []):
                self.assertEqual(port["host_ip"], "127.0.0.1", name)
        for room in settings.ROOMS:
            self.assertNotIn("ports", self.services[room])
            self.assertNotIn("container_name", self.services[room])

    def test_our_containers_can_do_nothing_that_they_need_not(self):
        for name, service in self.services.items():
            if "build" in service:
                self.assertTrue(service["read_only"], name)
                self.assertEqual(service["cap_drop"], ["ALL"], name)
                self.assertIn("no-new-privileges:true", service["security_opt"], name)

    def test_keys_of_providers_come_from_outside(self):
        for name, service in self.services.items():
            for key, value in (service.get("environment") or {}).items():
                if key.startswith("BATCHMILL__") and SECRET.search(key):
                    self.assertIsNone(value, f"{name}: {key} has a value in compose.yaml")

    def test_a_stop_leaves_time_to_drain(self):
        shown = call(settings.binary(), "config", "show", "--config", COMPOSE / "batchmill.toml").stdout
        drain = int(re.search(r"loop\.drain_timeout_seconds\s*=?\s*(\d+)", shown)[1])
        for room in settings.ROOMS:
            minutes = re.fullmatch(r"(\d+)m0s", self.services[room]["stop_grace_period"])
            self.assertGreater(60 * int(minutes[1]), drain, room)


class Mounted(unittest.TestCase):
    """The files that compose.yaml mounts."""

    def test_the_settings_are_sound(self):
        text = (COMPOSE / "batchmill.toml").read_text(encoding="utf-8")
        code, said = config_check(text)
        self.assertEqual(code, 0, said)
        code, said = config_check(text.replace("max_bytes", "max_byte"))
        self.assertEqual(code, 2, said)

    def test_no_job_may_name_the_state(self):
        text = tomllib.loads((COMPOSE / "batchmill.toml").read_text(encoding="utf-8"))
        bucket = text["store"]["uri"].split("/")[2]
        self.assertTrue(text["locations"]["allow"])
        for allowed in text["locations"]["allow"]:
            self.assertNotEqual(allowed.split("/")[2], bucket)
        made = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
        buckets = re.search(r"for bucket in ([a-z ]+); do", made)[1].split()
        self.assertEqual({bucket, *(allowed.split("/")[2] for allowed in text["locations"]["allow"])}, set(buckets))

    def test_prometheus_accepts_its_configuration_and_scrapes_each_service(self):
        config = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
        scrape = next(scrape for scrape in config["scrape_configs"] if scrape["job_name"] == "batchmill")
        self.assertEqual(scrape["dns_sd_configs"][0]["names"], settings.ROOMS)
        listen = tomllib.loads((COMPOSE / "batchmill.toml").read_text(encoding="utf-8"))["admin"]["listen"]
        self.assertEqual(listen, f"0.0.0.0:{scrape['dns_sd_configs'][0]['port']}")
        self.assertEqual(config["rule_files"], ["/etc/prometheus/rules/*.yml"])
        config["rule_files"] = [str(COMPOSE / "prometheus" / "rules" / "*.yml")]
        with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
            yaml.safe_dump(config, file)
            file.flush()
            done = call(PARTS / "prometheus" / "usr" / "bin" / "promtool", "check", "config", file.name)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_grafana_finds_its_datasource_and_its_dashboards(self):
        provisioning = COMPOSE / "grafana" / "provisioning"
        source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))["datasources"]
        self.assertEqual([(one["uid"], one["type"], one["url"]) for one in source],
                         [("prometheus", "prometheus", "http://prometheus:9090")])
        provider = yaml.safe_load((provisioning / "dashboards" / "batchmill.yaml").read_text(encoding="utf-8"))["providers"][0]
        mounts = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))["services"]["grafana"]["volumes"]
        self.assertIn(f"./grafana/dashboards:{provider['options']['path']}:ro", mounts)
        interval = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))["global"]
        self.assertEqual(source[0]["jsonData"]["timeInterval"], interval["scrape_interval"])


class Image(unittest.TestCase):
    """The Dockerfile and what it is built from."""

    @classmethod
    def setUpClass(cls):
        cls.text = (COMPOSE / "Dockerfile").read_text(encoding="utf-8")
        joined = re.sub(r"^#.*\n", "", cls.text, flags=re.MULTILINE).replace("\\\n", " ")
        cls.steps = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
        last = max(number for number, (word, _) in enumerate(cls.steps) if word == "FROM")
        cls.final = cls.steps[last:]

    def test_a_linter_finds_nothing(self):
        done = call(PARTS / "deploy" / "bin" / "hadolint", COMPOSE / "Dockerfile")
        self.assertEqual(done.returncode, 0, done.stdout)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write("FROM debian\nRUN apt-get install curl\n")
            file.flush()
            self.assertNotEqual(call(PARTS / "deploy" / "bin" / "hadolint", file.name).returncode, 0)

    def test_bases_are_pinned_and_the_compiler_is_ours(self):
        stages = [rest.split()[0] for word, rest in self.steps if word == "FROM"]
        names = {rest.split()[2] for word, rest in self.steps if word == "FROM" and " AS " in rest}
        for image in stages:
            self.assertTrue(image in names or pinned(image), image)
        self.assertTrue(stages[0].startswith(f"rust:{workspace()['rust-version']}-"), stages[0])

    def test_it_runs_as_nobody_in_particular_with_nothing_to_install(self):
        users = [rest for word, rest in self.final if word == "USER"]
        self.assertRegex(users[-1], r"^[1-9]\d*:[1-9]\d*$")
        self.assertFalse([rest for word, rest in self.final if word in ("RUN", "ADD")], "the final stage only copies")

    def test_nothing_secret_and_no_package_list_stays_behind(self):
        for word, rest in self.steps:
            if word in ("ARG", "ENV"):
                self.assertIsNone(SECRET.search(rest), rest)
            if "apt-get install" in rest:
                self.assertIn("--no-install-recommends", rest)
                self.assertIn("rm -rf /var/lib/apt/lists/*", rest)

    def test_dependencies_are_a_layer_before_the_sources(self):
        build = self.text[self.text.index("AS build"):]
        self.assertLess(build.index("cargo chef cook"), build.index("COPY . ."))
        flags = "--release --locked --package batchmill --features tls"
        self.assertEqual(build.count(flags), 2, "dependencies and binary are built alike, or the layer is of no use")
        manifest = tomllib.loads((REPO / "services" / "batchmill" / "Cargo.toml").read_text(encoding="utf-8"))
        self.assertIn("tls", manifest["features"])

    def test_what_the_build_needs_gets_past_dockerignore_and_nothing_else_does(self):
        let_in = [path for path in files_of_the_repository() if not ignored(path)]
        built = Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target") / "debug" / "batchmill.d"
        sources = built.read_text(encoding="utf-8").split(": ", 1)[1].split()
        ours = [Path(path).relative_to(REPO) for path in sources if Path(path).is_relative_to(REPO)]
        ours = [path for path in ours if path.parts[0] != "target" and (REPO / path).is_file()]
        self.assertGreater(len(ours), 50)
        self.assertEqual([path for path in ours if path not in let_in], [])
        self.assertEqual({path.parts[0] for path in let_in},
                         {"Cargo.toml", "Cargo.lock", "LICENSE", "shared", "services", "tests"})
        self.assertEqual([path for path in let_in if path.suffix in {".csv", ".parquet", ".py", ".key", ".pem", ".env"}
                          and path.parts[:2] != ("tests", "fast")], [])
        with tempfile.TemporaryDirectory() as folder:
            for path in let_in:
                target = Path(folder) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPO / path, target)
            done = call("cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version", "1", env=os.environ,
                        cwd=folder)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_binary_asks_for_no_library_that_the_base_lacks(self):
        done = call("ldd", settings.binary())
        wanted = {line.split()[0].rpartition("/")[2].partition(".so")[0] for line in done.stdout.splitlines()}
        self.assertIn("libc", wanted)
        self.assertLessEqual(wanted, {"linux-vdso", "ld-linux-x86-64", "ld-linux-aarch64", "libc", "libm", "libgcc_s", "libdl",
                                      "libpthread", "librt"})

    def test_the_health_check_of_the_image_is_the_commands_own(self):
        check = json.loads(re.search(r"HEALTHCHECK.*CMD (\[.*\])", self.text.replace("\\\n", " "))[1])
        entry = json.loads(re.search(r"^ENTRYPOINT (\[.*\])$", self.text, re.MULTILINE)[1])
        self.assertEqual(check, [*entry, "healthcheck"])
        done = call(settings.binary(), "healthcheck", "http://127.0.0.1:1/readyz")
        self.assertEqual(done.returncode, 1, done.stderr)


def files_of_the_repository():
    """What is or will be checked in."""
    done = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=REPO,
                          capture_output=True, check=True)
    paths = [Path(name) for name in done.stdout.decode().split("\0") if name]
    return [path for path in paths if (REPO / path).is_file()]


def ignored(path):
    """Whether .dockerignore leaves a path out: the last line that fits it or a folder above it decides."""
    out = False
    for line in (REPO / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            above = [Path(*path.parts[:length]) for length in range(1, len(path.parts) + 1)]
            if any(one.full_match(pattern) if hasattr(one, "full_match") else matches(one, pattern) for one in above):
                out = not line.startswith("!")
    return out


def matches(path, pattern):
    """A path and a pattern of .dockerignore: `*` stays within a name, `**/` is any folders."""
    expression = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(expression, path.as_posix()) is not None


if __name__ == "__main__":
    unittest.main()
