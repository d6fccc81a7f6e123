"""The Helm chart, rendered, is what Kubernetes takes and what the documents promise."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
HELM = ROOT / "deploy" / "helm"
FILES = sorted((HELM / "rendered").glob("*.yaml"))
KUBERNETES = "1.30"
OF_OPERATORS = {"ServiceMonitor", "ScaledObject"}  # kinds that Kubernetes itself does not know
RENDERED: dict[str, list[dict[str, Any]]] = {
    file.stem: list(yaml.safe_load_all(file.read_text(encoding="utf-8"))) for file in FILES
}
PODS = [
    pytest.param(each["spec"]["template"]["spec"], id=f"{case}-{each['kind']}")
    for case, documents in RENDERED.items()
    for each in documents
    if each["kind"] in ("Deployment", "StatefulSet")
]


def only(case: str, kind: str) -> dict[str, Any]:
    """Return the one document of a kind, or that of the service where Redis has one too."""
    found = [each for each in RENDERED[case] if each["kind"] == kind]
    return next(each for each in found if not each["metadata"]["name"].endswith("-redis"))


@pytest.mark.parametrize("case", RENDERED)
def test_kubernetes_takes_every_document(case: str) -> None:
    taken = 0
    for document in RENDERED[case]:
        if document["kind"] not in OF_OPERATORS:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
            taken += 1
    assert taken >= 4


@pytest.mark.skipif(not shutil.which("go"), reason="go is not installed: what is committed counts")
def test_what_is_committed_is_what_the_chart_says(tmp_path: Path) -> None:
    subprocess.run([HELM / "render.sh", tmp_path], check=True, timeout=300)
    rendered = {file.stem: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.yaml")}
    assert rendered == {file.stem: file.read_text(encoding="utf-8") for file in FILES}


def test_each_case_is_rendered() -> None:
    assert set(RENDERED) == {"default"} | {file.stem for file in (HELM / "cases").glob("*.yaml")}


@pytest.mark.parametrize("pod", PODS)
def test_pods_have_no_rights_and_a_read_only_root(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_a_pod_reaches_names_and_redis_and_nothing_else() -> None:
    spec = only("default", "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    names, redis = spec["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    (peer,) = redis["to"]
    labels = peer["podSelector"]["matchLabels"]
    assert labels["app.kubernetes.io/component"] == "redis"
    store = next(each for each in RENDERED["default"] if each["kind"] == "StatefulSet")
    assert labels.items() <= store["spec"]["template"]["metadata"]["labels"].items()


def test_every_setting_of_a_pod_is_one_of_the_service() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {"OPENAI_API_KEY"}
    for case in RENDERED:
        (container,) = only(case, "Deployment")["spec"]["template"]["spec"]["containers"]
        assert {each["name"] for each in container["env"]} <= known


def test_probes_ask_routes_that_need_no_key() -> None:
    keys = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    (container,) = only("default", "Deployment")["spec"]["template"]["spec"]["containers"]
    for kind in ("startup", "readiness", "liveness"):
        path = container[f"{kind}Probe"]["httpGet"]["path"]
        assert f"`{path}`" in keys


def test_the_file_store_has_one_pod_and_its_volume() -> None:
    deployment = only("embedded", "Deployment")["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    claim = only("embedded", "PersistentVolumeClaim")["metadata"]["name"]
    volumes = deployment["template"]["spec"]["volumes"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": claim}} in volumes
    assert not [each for each in RENDERED["embedded"] if each["kind"] == "PodDisruptionBudget"]


@pytest.mark.parametrize("case", ["hpa", "large"])
def test_replicas_grow_with_a_metric_that_the_service_has(case: str) -> None:
    grown = next(
        each
        for each in RENDERED[case]
        if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    )
    asked = set(re.findall(r"kshot_\w+", yaml.safe_dump(grown["spec"])))
    assert asked == {"kshot_queue_frames"}
    assert "`kshot_queue_frames`" in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert "replicas" not in only(case, "Deployment")["spec"]


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((HELM / "kshot" / "Chart.yaml").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{chart["appVersion"]}"\n' in project
