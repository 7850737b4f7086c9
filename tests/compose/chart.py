#!/usr/bin/env python3
"""The Helm chart, and the manifests that it was rendered to. No cluster, no network, half a minute:

    .parts/deploy/bin/python tests/compose/chart.py

It needs the parts (`tests/parts/fetch`) and a built batchmill ($BATCHMILL_BIN, or the debug build).
"""

import copy
import re
import tempfile
import unittest
from pathlib import Path

import yaml
from check import BARE, COMPOSE, PARTS, REPO, call, config_check, settings, workspace
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as operator

CHARTS = COMPOSE / "kubernetes"
CHART = CHARTS / "batchmill"
HELM = PARTS / "helm" / "bin" / "helm"
CUSTOM = {"ScaledObject": keda.ScaledObject, "ServiceMonitor": operator.ServiceMonitor, "PrometheusRule": operator.PrometheusRule}
# Values that must be refused, and what the refusal names.
WRONG = [
    ("image.tag=latest", "image/tag"),
    ("image.repostory=x", "repostory"),
    ("rooms.splitter.maxReplicas=13", "rooms/splitter/maxReplicas"),
    ("rooms.poller.maxReplicas=25", "rooms/poller/maxReplicas"),
    ("rooms.merger.minReplicas=0", "rooms/merger/minReplicas"),
    ("rooms.poler.replicas=1", "poler"),
    ("rooms.poller.replicas=many", "rooms/poller/replicas"),
    ("rooms.poller.resources.limits.memory=lots", "rooms/poller/resources/limits/memory"),
    ("settings.store.uri=file:///data", "settings/store/uri"),
    ("settings.kafka.brokers=kafka", "settings/kafka/brokers"),
    ("settings.admin.listen=127.0.0.1:9090", "settings/admin/listen"),
    ("settings.scratch.dir=scratch", "settings/scratch/dir"),
    ("autoscaling.kafka.sasl=gssapi", "autoscaling/kafka/sasl"),
    ("autoscaling.prometheus.serverAddress=prometheus:9090", "autoscaling/prometheus/serverAddress"),
    ("secrets[0].env=OPENAI_API_KEY,secrets[0].secretName=a,secrets[0].key=b", "secrets/0/env"),
    ("secrets[0].env=BATCHMILL__X__API_KEY,secrets[0].value=sk-1", "secrets/0"),
    ("terminationMarginSeconds=0", "terminationMarginSeconds"),
    ("podDisruptionBudget.maxUnavailable=0", "podDisruptionBudget/maxUnavailable"),
    ("topologySpread.whenUnsatisfiable=Sometimes", "topologySpread/whenUnsatisfiable"),
]
UNITS = {"": 1, "m": 0.001, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def rendered(name):
    """The documents of a file that is checked in."""
    text = (CHARTS / "rendered" / f"{name}.yaml").read_text(encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document]


def template(*words):
    """The chart's documents with other values, or what Helm said against them."""
    done = call(HELM, "template", "batchmill", CHART, "--namespace", "batchmill", *words)
    documents = [document for document in yaml.safe_load_all(done.stdout) if document] if done.returncode == 0 else []
    return documents, done.stderr


def of_kind(documents, kind):
    """The documents of a kind, by name."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def quantity(text):
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()
    return float(number) * UNITS[unit]


def topics():
    """The topics in the contract of the events, and their partitions."""
    document = yaml.safe_load((REPO / "schemas" / "asyncapi.yaml").read_text(encoding="utf-8"))
    return {channel["address"]: channel["bindings"]["kafka"]["partitions"] for channel in document["channels"].values()
            if "bindings" in channel}


class Chart(unittest.TestCase):
    """What Helm says."""

    def test_lint_finds_nothing(self):
        for words in ([], ["--values", CHART / "ci" / "scaled-values.yaml"]):
            done = call(HELM, "lint", "--strict", CHART, *words)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_what_is_checked_in_is_what_the_chart_renders(self):
        with tempfile.TemporaryDirectory() as folder:
            done = call(CHARTS / "render", folder, env={**BARE, "HELM": str(HELM)})
            self.assertEqual(done.returncode, 0, done.stderr)
            for name in ("plain", "scaled"):
                fresh = (Path(folder) / f"{name}.yaml").read_text(encoding="utf-8")
                kept = (CHARTS / "rendered" / f"{name}.yaml").read_text(encoding="utf-8")
                self.assertEqual(fresh, kept, f"{name}.yaml is old: run compose/kubernetes/render")

    def test_versions_are_the_workspaces(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
        self.assertEqual(chart["version"], workspace()["version"])
        self.assertEqual(chart["appVersion"], workspace()["version"])

    def test_wrong_values_are_refused_by_name(self):
        for value, named in WRONG:
            documents, said = template("--set", value)
            self.assertFalse(documents, f"{value} was accepted")
            self.assertIn(named, said.replace(".", "/"), value)

    def test_a_misspelt_setting_gets_past_helm_and_is_caught_by_config_check(self):
        documents, _ = template("--set", "settings.loop.max_runing=3")
        code, said = config_check(of_kind(documents, "ConfigMap")["batchmill"]["data"]["batchmill.toml"])
        self.assertEqual(code, 2)
        self.assertIn("max_running", said)

    def test_notes_are_plain_text(self):
        done = call(HELM, "install", "batchmill", CHART, "--dry-run=client", "--namespace", "batchmill")
        self.assertEqual(done.returncode, 0, done.stderr)
        notes = done.stdout[done.stdout.index("NOTES:"):]
        self.assertIn("--template 'Describe {{ title }}'", notes)
        self.assertIn("deploy/batchmill-splitter", notes)


class Manifests(unittest.TestCase):
    """What was rendered."""

    def test_they_fit_the_schemas_of_kubernetes(self):
        for name in ("plain", "scaled"):
            core = [document for document in rendered(name) if document["kind"] not in CUSTOM]
            self.assertGreaterEqual(len(core), 16)
            self.assertEqual(self.validate(core)[0], 0, self.validate(core)[1])
        core[0]["spec"]["maxUnavailabel"] = 1
        self.assertNotEqual(self.validate(core)[0], 0)

    def validate(self, documents):
        """Exit code and output of the validator."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            yaml.safe_dump_all(documents, file)
            file.flush()
            done = call(PARTS / "deploy" / "bin" / "kubernetes-validate", "--strict", file.name)
        return done.returncode, done.stdout + done.stderr

    def test_custom_resources_have_known_fields_of_the_right_types(self):
        documents, said = template("--values", CHART / "ci" / "scaled-values.yaml", "--set", "prometheusRule.enabled=true")
        custom = [document for document in documents if document["kind"] in CUSTOM]
        kinds = [document["kind"] for document in custom]
        self.assertEqual(kinds.count("ScaledObject"), 4, said)
        self.assertEqual(kinds.count("ServiceMonitor"), 1)
        for document in custom:
            self.assertEqual(self.known(document), document)
        wrong = copy.deepcopy(next(document for document in custom if document["kind"] == "ScaledObject"))
        wrong["spec"]["minReplicaCont"] = 1
        self.assertNotEqual(self.known(wrong), wrong)

    def known(self, document):
        """A resource, without the fields that its definition doesn't know; a wrong type raises."""
        model = CUSTOM[document["kind"]].model_validate(document)
        return model.model_dump(by_alias=True, exclude_unset=True, mode="json")

    def test_the_settings_are_sound_and_secrets_come_by_reference(self):
        for name in ("plain", "scaled"):
            maps = of_kind(rendered(name), "ConfigMap")
            self.assertEqual(set(maps), {"batchmill", "batchmill-topics"})
            for one in maps.values():
                code, said = config_check(one["data"]["batchmill.toml"])
                self.assertEqual(code, 0, said)
            self.assertEqual(of_kind(rendered(name), "Secret"), {})
        pod = of_kind(rendered("scaled"), "Deployment")["batchmill-poller"]["spec"]["template"]["spec"]
        files = {one["name"]: one["value"] for one in pod["containers"][0]["env"] if one["name"].endswith("_FILE")}
        projected = next(volume for volume in pod["volumes"] if volume["name"] == "secrets")["projected"]["sources"]
        mounted = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "secrets")["mountPath"]
        paths = {f"{mounted}/{item['path']}" for source in projected for item in source["secret"]["items"]}
        self.assertEqual(set(files.values()), paths)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "key").write_text("for-a-test\n", encoding="utf-8")
            code, said = config_check(of_kind(rendered("scaled"), "ConfigMap")["batchmill"]["data"]["batchmill.toml"],
                                      **dict.fromkeys(files, f"{folder}/key"))
        self.assertEqual(code, 0, said)

    def test_each_room_is_a_deployment_that_drains_and_can_do_nothing_else(self):
        for name in ("plain", "scaled"):
            deployments = of_kind(rendered(name), "Deployment")
            self.assertEqual(set(deployments), {f"batchmill-{room}" for room in settings.ROOMS})
            for room in settings.ROOMS:
                deployment = deployments[f"batchmill-{room}"]
                self.assertEqual("replicas" in deployment["spec"], name == "plain", "with KEDA the number is KEDA's")
                pod = deployment["spec"]["template"]["spec"]
                box = pod["containers"][0]
                self.assertEqual(box["args"], [room])
                self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                self.assertTrue(box["securityContext"]["readOnlyRootFilesystem"])
                self.assertEqual(box["securityContext"]["capabilities"], {"drop": ["ALL"]})
                self.assertFalse(pod["automountServiceAccountToken"])
                self.assertGreater(pod["terminationGracePeriodSeconds"], 100)
                for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
                    self.assertEqual(box[probe]["httpGet"], {"path": path, "port": "admin"})
                scratch = next(volume for volume in pod["volumes"] if volume["name"] == "scratch")["emptyDir"]["sizeLimit"]
                self.assertGreater(quantity(scratch), 17179869184)
                self.assertGreater(quantity(box["resources"]["limits"]["ephemeral-storage"]), quantity(scratch))

    def test_the_grace_period_follows_the_drain_setting(self):
        documents, _ = template("--set", "settings.loop.drain_timeout_seconds=300")
        for deployment in of_kind(documents, "Deployment").values():
            self.assertEqual(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 320)

    def test_selectors_find_their_pods(self):
        documents = rendered("scaled")
        labels = {name: deployment["spec"]["template"]["metadata"]["labels"]
                  for name, deployment in of_kind(documents, "Deployment").items()}
        for kind in ("PodDisruptionBudget", "Service", "ScaledObject"):
            self.assertEqual(set(of_kind(documents, kind)), set(labels), kind)
        for name in labels:
            budget = of_kind(documents, "PodDisruptionBudget")[name]["spec"]["selector"]["matchLabels"]
            service = of_kind(documents, "Service")[name]["spec"]["selector"]
            spread = of_kind(documents, "Deployment")[name]["spec"]["template"]["spec"]["topologySpreadConstraints"][0]
            for selector in (budget, service, spread["labelSelector"]["matchLabels"],
                             of_kind(documents, "Deployment")[name]["spec"]["selector"]["matchLabels"]):
                self.assertEqual([other for other, has in labels.items() if selector.items() <= has.items()], [name])
        monitor = of_kind(documents, "ServiceMonitor")["batchmill"]["spec"]["selector"]["matchLabels"]
        for service in of_kind(documents, "Service").values():
            self.assertLessEqual(monitor.items(), service["metadata"]["labels"].items())

    def test_scalers_follow_topics_and_groups_that_exist_and_stay_within_their_partitions(self):
        partitions = topics()
        for room in settings.ROOMS:
            spec = of_kind(rendered("scaled"), "ScaledObject")[f"batchmill-{room}"]["spec"]
            self.assertEqual(spec["scaleTargetRef"], {"name": f"batchmill-{room}"})
            self.assertLessEqual(spec["minReplicaCount"], spec["maxReplicaCount"])
            for trigger in spec["triggers"]:
                if room == "poller":
                    self.assertEqual(trigger["type"], "prometheus")
                    continue
                self.assertEqual(trigger["metadata"]["consumerGroup"], f"batchmill-{room}")
                self.assertEqual(trigger["metadata"]["excludePersistentLag"], "false")
                topic = trigger["metadata"]["topic"].replace("jobs.search.v1", "jobs.v1")
                self.assertLessEqual(spec["maxReplicaCount"], partitions[topic])
        followed = {trigger["metadata"].get("topic") for scaled in of_kind(rendered("scaled"), "ScaledObject").values()
                    for trigger in scaled["spec"]["triggers"]}
        self.assertEqual(followed, {None, "batchmill.jobs.v1", "batchmill.jobs.search.v1", "batchmill.batches.v1",
                                    "batchmill.retries.v1", "batchmill.results.v1"})

    def test_alerts_are_those_of_compose(self):
        documents, said = template("--set", "prometheusRule.enabled=true")
        wanted = [group for path in sorted((COMPOSE / "prometheus" / "rules").glob("*.yml"))
                  for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
        self.assertEqual(of_kind(documents, "PrometheusRule")["batchmill"]["spec"]["groups"] or [], wanted, said)
        self.assertEqual(of_kind(rendered("plain"), "PrometheusRule"), {})

    def test_the_topics_are_made_before_the_services_start(self):
        job = of_kind(rendered("scaled"), "Job")["batchmill-topics"]
        self.assertEqual(job["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade")
        pod = job["spec"]["template"]["spec"]
        self.assertEqual(pod["containers"][0]["args"], ["topics", "apply", "--replication=3", "--team=search"])
        self.assertNotIn("serviceAccountName", pod, "the release's account is not there before the installation")
        config = next(volume for volume in pod["volumes"] if volume["name"] == "settings")["configMap"]["name"]
        hook = of_kind(rendered("scaled"), "ConfigMap")[config]["metadata"]["annotations"]
        self.assertLess(int(hook["helm.sh/hook-weight"]), int(job["metadata"]["annotations"]["helm.sh/hook-weight"]))
        done = call(settings.binary(), *pod["containers"][0]["args"], "--help")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(of_kind(template("--set", "topics.enabled=false")[0], "Job"), {})

    def test_the_rendered_folder_is_a_kustomize_base(self):
        done = call(PARTS / "helm" / "bin" / "kubectl", "kustomize", CHARTS / "rendered")
        self.assertEqual(done.returncode, 0, done.stderr)
        built = [document for document in yaml.safe_load_all(done.stdout) if document]
        self.assertEqual(len(built), len(rendered("plain")))


if __name__ == "__main__":
    unittest.main()
