"""What deploy/ brings to a cluster: built by kustomize, held against the schemas of Kubernetes and against each other.

Run by ``make check-deploy``, in an environment that has kubectl and the schemas and nothing of the service.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from shutil import copytree
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
BUILT = ["overlays/staging", "overlays/production", "overlays/canary", "migrate"]
#: The oldest and the newest release of Kubernetes that the manifests are held against.
RELEASES = ["1.30", "1.37"]

Manifest = dict[str, Any]


@cache
def build(name: str) -> list[Manifest]:
    """Return what an overlay puts into the cluster."""
    return kustomize(KUBERNETES / name)


def kustomize(directory: Path) -> list[Manifest]:
    kubectl = Path(sys.executable).with_name("kubectl")
    result = subprocess.run([kubectl, "kustomize", directory], check=True, capture_output=True, text=True)
    assert result.stderr == ""
    return list(yaml.safe_load_all(result.stdout))


def of_kind(name: str, kind: str) -> list[Manifest]:
    return [manifest for manifest in build(name) if manifest["kind"] == kind]


def pods(name: str) -> list[Manifest]:
    """Return the pod templates of an overlay."""
    return [manifest["spec"]["template"] for kind in ("Deployment", "Job") for manifest in of_kind(name, kind)]


def container(name: str) -> Any:
    (pod,) = pods(name)
    (only,) = pod["spec"]["containers"]
    return only


def settings_of(name: str) -> dict[str, str]:
    (config_map,) = of_kind(name, "ConfigMap")
    return dict(config_map["data"])


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def labels_of_pods(name: str) -> dict[str, str]:
    (pod,) = pods(name)
    return dict(pod["metadata"]["labels"])


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", BUILT)
def test_manifests_fit_the_schemas_of_kubernetes(name: str, release: str) -> None:
    for manifest in build(name):
        kubernetes_validate.validate(manifest, release, strict=True)


def test_the_namespace_fits_its_schema() -> None:
    kubernetes_validate.validate(yaml.safe_load((KUBERNETES / "namespace.yaml").read_text()), RELEASES[-1], strict=True)


def test_every_kustomization_is_part_of_what_is_built() -> None:
    # The one that is chosen by whoever needs it is built by a test of its own.
    used = {KUBERNETES / "components/client-certificates"}

    def follow(directory: Path) -> None:
        used.add(directory)
        kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
        for each in [*kustomization.get("resources", []), *kustomization.get("components", [])]:
            if (directory / each).is_dir():
                follow((directory / each).resolve())

    for each in BUILT:
        follow(KUBERNETES / each)
    assert used == {path.parent for path in KUBERNETES.glob("**/kustomization.yaml")}


@pytest.mark.parametrize("name", BUILT)
def test_pods_keep_what_a_restricted_namespace_asks_for(name: str) -> None:
    for pod in pods(name):
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == int(re.findall(r"^USER (\d+):", dockerfile(), re.MULTILINE)[0])
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        for each in pod["spec"]["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["resources"]["requests"].keys() == {"cpu", "memory"}
            assert each["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize("name", [name for name in BUILT if name != "migrate"])
def test_pods_are_killed_only_after_they_have_had_time_to_drain(name: str) -> None:
    told = settings_of(name)
    drain = float(told["MODELCATALOG_DRAIN_DELAY_SECONDS"]) + float(told["MODELCATALOG_DRAIN_SECONDS"])
    (pod,) = pods(name)
    assert pod["spec"]["terminationGracePeriodSeconds"] >= drain + 25


@pytest.mark.parametrize("name", [name for name in BUILT if name != "migrate"])
def test_probes_speak_as_the_server_does(name: str) -> None:
    server = container(name)
    is_encrypted = "MODELCATALOG_TLS_CERT" in {each["name"] for each in server["env"]}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        if is_encrypted:
            assert server[probe]["httpGet"] == {"path": path, "port": "metrics"}
            assert "grpc" not in server[probe]
        else:
            assert server[probe]["grpc"]["port"] == 50051
    assert is_encrypted or settings_of(name)["MODELCATALOG_INSECURE"] == "true"


@pytest.mark.parametrize("name", ["overlays/staging", "overlays/production"])
def test_what_selects_pods_finds_those_of_both_releases(name: str) -> None:
    selectors = [each["spec"]["selector"] for each in of_kind(name, "Service")]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in of_kind(name, "PodDisruptionBudget")]
    policies = [each for each in of_kind(name, "NetworkPolicy") if each["metadata"]["name"] == "modelcatalog"]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in policies]
    assert len(selectors) == 4
    for selector in selectors:
        assert matches(selector, labels_of_pods(name))
        assert matches(selector, labels_of_pods("overlays/canary"))
    (job_policy,) = [each for each in of_kind(name, "NetworkPolicy") if each not in policies]
    assert matches(job_policy["spec"]["podSelector"]["matchLabels"], labels_of_pods("migrate"))


def test_each_release_has_its_own_pods() -> None:
    (stable,), (canary,) = of_kind("overlays/production", "Deployment"), of_kind("overlays/canary", "Deployment")
    assert stable["metadata"]["name"] != canary["metadata"]["name"]
    assert stable["metadata"]["namespace"] == canary["metadata"]["namespace"]
    for one, other in ((stable, canary), (canary, stable)):
        selector = one["spec"]["selector"]["matchLabels"]
        assert matches(selector, one["spec"]["template"]["metadata"]["labels"])
        assert not matches(selector, other["spec"]["template"]["metadata"]["labels"])
    assert stable["spec"]["template"]["spec"].keys() == canary["spec"]["template"]["spec"].keys()
    assert "replicas" not in stable["spec"]
    (autoscaler,) = of_kind("overlays/production", "HorizontalPodAutoscaler")
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == stable["metadata"]["name"]


@pytest.mark.parametrize("name", ["overlays/staging", "overlays/production"])
def test_services_have_a_port_that_the_server_listens_on(name: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    assert settings_of(name)["MODELCATALOG_LISTEN"] == f"0.0.0.0:{ports['grpc']}"
    assert settings_of(name)["MODELCATALOG_METRICS_LISTEN"] == f"0.0.0.0:{ports['metrics']}"
    for service in of_kind(name, "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    for policy in of_kind(name, "NetworkPolicy"):
        assert {port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]} <= ports.keys()
    (headless,) = [each for each in of_kind(name, "Service") if each["spec"].get("clusterIP") == "None"]
    assert headless["metadata"]["name"] == "modelcatalog-replicas"


def test_client_certificates_go_on_top_of_tls(tmp_path: Path) -> None:
    # A copy, because kustomize reads nothing outside of what is built but by relative paths.
    copytree(KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/production"
    text = (overlay / "kustomization.yaml").read_text()
    with_both = text.replace("components:\n", "components:\n  - ../../components/client-certificates\n")
    (overlay / "kustomization.yaml").write_text(with_both)
    manifests = kustomize(overlay)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, RELEASES[-1], strict=True)
    (deployment,) = [each for each in manifests if each["kind"] == "Deployment"]
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    mounted = [each["mountPath"] for each in server["volumeMounts"]]
    files = [each["value"] for each in server["env"] if each.get("value", "").startswith("/")]
    assert len(files) == 3
    assert all(str(Path(file).parent) in mounted for file in files)


def test_every_secret_is_on_the_page() -> None:
    page = (ROOT / "docs/deployment.md").read_text()
    for name in BUILT:
        (pod,) = pods(name)
        volumes = [each["secret"]["secretName"] for each in pod["spec"].get("volumes", [])]
        variables = [
            each["valueFrom"]["secretKeyRef"]["name"] for each in container(name)["env"] if "valueFrom" in each
        ]
        for secret in [*volumes, *variables]:
            assert f"`{secret}`" in page, secret


def test_the_release_is_that_of_the_package() -> None:
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("overlays/staging", "overlays/production", "migrate"):
        assert container(name)["image"].endswith(f":{release}"), name
    assert f"image: modelcatalog:{release}\n" in (ROOT / "deploy/compose.yaml").read_text()


def test_compose_mounts_only_what_is_there() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / "deploy" / source).exists(), volume


def test_compose_needs_no_secret_that_the_example_does_not_name() -> None:
    compose = (ROOT / "deploy/compose.yaml").read_text()
    named = re.findall(r"^(\w+)=$", (ROOT / "deploy/.env.example").read_text(), re.MULTILINE)
    assert {*re.findall(r"\$\{(\w+):\?", compose)} == {*named}


def test_prometheus_scrapes_where_the_service_of_compose_listens() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    config = yaml.safe_load((ROOT / "deploy/prometheus/compose.yaml").read_text())
    (targets,) = [each["targets"] for job in config["scrape_configs"] for each in job["static_configs"]]
    listens = compose["services"]["modelcatalog"]["environment"]["MODELCATALOG_METRICS_LISTEN"]
    assert targets == [f"modelcatalog:{listens.rpartition(':')[2]}"]
    assert {job["job_name"] for job in config["scrape_configs"]} == {"modelcatalog"}, "what the rules ask by"


def dockerfile() -> str:
    return re.sub(r'["\],]', "\n", (ROOT / "Dockerfile").read_text())
