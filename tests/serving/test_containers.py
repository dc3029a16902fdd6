"""Dockerfile, compose.yaml and the manifests: by schema, and against the command and the routes they name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recsys.serving.http.app import create_app
from tests.serving.doubles import memory_service

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "docs" / "serving" / "manifests"

yaml = pytest.importorskip("yaml", reason="schemathesis brings it")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def kinds() -> dict[str, Any]:
    found = json.loads((ROOT / "tests" / "data" / "kubernetes_schemas.json").read_text(encoding="utf-8"))
    schemas: dict[str, Any] = found["kinds"]
    return schemas


def predictor() -> dict[str, Any]:
    """What KServe runs."""
    (service,) = documents(MANIFESTS / "kserve.yaml")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    found: dict[str, Any] = service["spec"]["predictor"]
    return found


def pods() -> dict[str, dict[str, Any]]:
    deployment = documents(MANIFESTS / "kubernetes.yaml")[0]
    return {"kubernetes": deployment["spec"]["template"]["spec"], "kserve": predictor()}


def argument_lists() -> dict[str, list[str]]:
    """Arguments of `recsys` in every file."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    command = json.loads(dockerfile.rpartition("\nCMD ")[2].replace("\\\n", ""))
    compose = documents(ROOT / "compose.yaml")[0]["services"]["serve"]["command"]
    return {
        "Dockerfile": command,
        "compose.yaml": compose,
        **{name: pod["containers"][0]["args"] for name, pod in pods().items()},
    }


def options(arguments: list[str]) -> dict[str, str]:
    """Values by option."""
    found: dict[str, str] = {}
    words = [part for word in arguments for part in word.split("=", 1)]
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            found[word] = "" if after.startswith("--") else after
    return found


def test_manifests_are_kubernetes_own(kinds: dict[str, Any]) -> None:
    jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="schemathesis brings it")
    found = documents(MANIFESTS / "kubernetes.yaml")
    assert [each["kind"] for each in found] == [
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    ]
    for each in found:
        jsonschema_rs.validate(kinds[each["kind"]], each)
    own = {"minReplicas", "maxReplicas", "timeout"}  # of KServe; the rest is a pod's
    pod = {name: value for name, value in predictor().items() if name not in own}
    spec = kinds["Deployment"]["properties"]["spec"]["properties"]["template"]["properties"]["spec"]
    jsonschema_rs.validate(spec, pod)
    pod["containers"][0]["readinessProbes"] = {}
    with pytest.raises(jsonschema_rs.ValidationError, match="readinessProbes"):
        jsonschema_rs.validate(spec, pod)


@pytest.mark.parametrize("name", ["kubernetes", "kserve"])
def test_pods_end_after_the_service_and_ask_routes_that_there_are(name: str) -> None:
    pod = pods()[name]
    (container,) = pod["containers"]
    given = options(container["args"])
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    assert pod["terminationGracePeriodSeconds"] > float(given["--grace"]) > float(given["--drain"])
    # A balancer has to see "not ready" before nothing new is taken.
    ready = probes["readiness"]
    assert ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"] < float(
        given["--drain"]
    )
    paths = create_app(memory_service()).openapi()["paths"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    for probe in probes.values():
        asked = probe["httpGet"]
        assert asked["path"] in paths
        assert ports.get(asked["port"], asked["port"]) == int(given["--port"])
    mounts = {each["name"] for each in container["volumeMounts"]}
    assert mounts == {each["name"] for each in pod["volumes"]}
    # The root is read-only: what is written has a volume.
    written = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert written == {"/var/cache/recsys", "/tmp"}


def test_the_autoscaler_and_the_name_are_of_the_deployment() -> None:
    deployment, service, scaler, budget = documents(MANIFESTS / "kubernetes.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (deployment["kind"], deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "kubernetes", "kserve"])
def test_options_are_those_of_the_command(name: str) -> None:
    from typer.main import get_command

    app = pytest.importorskip("recsys.commands.app").app
    command = getattr(get_command(app), "commands", {})["serve"]
    known = {option for parameter in command.params for option in parameter.opts}
    arguments = argument_lists()[name]
    assert arguments[:2] == ["serve", "/runs/current"]
    assert set(options(arguments)) <= known
    # Others reach a container: never without keys.
    assert {"--host", "--keys"} <= set(options(arguments))


def test_compose_waits_for_the_store_and_ends_after_the_service() -> None:
    (compose,) = documents(ROOT / "compose.yaml")
    serve, events = compose["services"]["serve"], compose["services"]["events"]
    assert float(serve["stop_grace_period"].removesuffix("s")) > float(options(serve["command"])["--grace"])
    assert serve["depends_on"] == {"events": {"condition": "service_healthy"}}
    assert serve["read_only"]
    assert all(port.startswith("127.0.0.1:") for port in serve["ports"])
    used = {mount.partition(":")[0] for each in (serve, events) for mount in each["volumes"]}
    assert {name for name in used if not name.startswith(".")} == set(compose["volumes"])
    assert "ports" not in events


def test_the_image_runs_as_nobody_special_and_is_asked_whether_it_is_ready() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    port = options(argument_lists()["Dockerfile"])["--port"]
    assert f"http://127.0.0.1:{port}/readyz" in text
    (check,) = re.findall(r"HEALTHCHECK .*?CMD (\[.*?\])\n", text, re.DOTALL)
    compile(json.loads(check)[2], "HEALTHCHECK", "exec")


def test_what_the_image_is_built_of_is_there() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert [name for name in kept if not (ROOT / name).exists()] == []
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {project["readme"], *project["license-files"]} <= set(kept)
