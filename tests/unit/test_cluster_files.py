"""
The files that start a Ray cluster: Ray's own checks take them, and they are private, with a token, without telemetry.

Nothing is started. KubeRay's operator and its schema are not here: the fields of a RayCluster are checked against those
of its API that are used, what stands in Kubernetes' own objects against its Python client.
"""

import copy
import importlib
import ipaddress
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from kubernetes import client
from pydantic import BaseModel, ConfigDict, Field, ValidationError

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
(RAY_VERSION,) = re.findall(r"==([\d.]+)", " ".join(PROJECT["optional-dependencies"]["cluster"]))
RAY = "~/recmodels/.venv/bin/ray"

# Ray's command line loads Ray Serve, which defines its settings in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")


def _cluster() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "ray-cluster.yaml").read_text())


def _start_commands() -> list[str]:
    cluster = _cluster()
    commands = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    return [command for command in commands if " start " in command]


def _parsed(arguments: list[str]) -> dict[str, Any]:
    """Return what `ray start` reads of its arguments, without starting anything."""
    from ray.scripts.scripts import start

    return start.make_context("ray start", arguments).params


def test_ray_accepts_the_cluster_and_refuses_a_misspelt_key() -> None:
    from jsonschema import ValidationError as Refusal
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(_cluster()))
    validate_config(prepared)
    assert prepared["max_workers"] == len(_cluster()["provider"]["worker_ips"])
    with pytest.raises(Refusal, match="setup_comands"):
        validate_config({**prepared, "setup_comands": []})


def test_ray_reads_the_start_commands() -> None:
    head, worker = (_parsed(shlex.split(command.split(f"{RAY} start", 1)[1])) for command in _start_commands())
    assert head["head"]
    assert head["include_dashboard"] is False
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"
    assert head["disable_usage_stats"]
    assert worker["disable_usage_stats"]


def test_every_ray_process_of_the_cluster_wants_the_token_and_sends_no_statistics() -> None:
    assert len(_start_commands()) == 2
    for command in _start_commands():
        environment = dict(word.split("=", 1) for word in command.split(RAY)[0].split())
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    # The file of the token goes to every machine; no token stands in the file.
    assert _cluster()["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "RAY_AUTH_TOKEN=" not in (DOCKER / "ray-cluster.yaml").read_text()


def test_the_cluster_lies_in_a_private_network() -> None:
    provider = _cluster()["provider"]
    addresses = [provider["head_ip"], *provider["worker_ips"]]
    assert all(ipaddress.ip_address(address).is_private for address in addresses)
    assert f"--node-ip-address={provider['head_ip']}" in _start_commands()[0]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Metadata(_Strict):
    name: str


class _Authentication(_Strict):
    mode: Literal["token", "disabled"]


class _Head(_Strict):
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"]  # noqa: N815 - the API's own name
    rayStartParams: dict[str, str]  # noqa: N815
    template: dict[str, Any]


class _Worker(_Strict):
    groupName: str = Field(min_length=1)  # noqa: N815
    replicas: int = Field(ge=0)
    minReplicas: int = Field(ge=0)  # noqa: N815
    maxReplicas: int = Field(ge=0)  # noqa: N815
    rayStartParams: dict[str, str]  # noqa: N815
    template: dict[str, Any]


class _Spec(_Strict):
    rayVersion: str  # noqa: N815
    authOptions: _Authentication  # noqa: N815
    headGroupSpec: _Head  # noqa: N815
    workerGroupSpecs: list[_Worker]  # noqa: N815


class _RayCluster(_Strict):
    """The fields of `ray.io/v1` RayCluster, as of KubeRay 1.5.1, that the manifest uses."""

    apiVersion: Literal["ray.io/v1"]  # noqa: N815
    kind: Literal["RayCluster"]
    metadata: _Metadata
    spec: _Spec


def _manifests() -> tuple[dict[str, Any], dict[str, Any]]:
    policy, cluster = yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text())
    return policy, cluster


def _unknown(value: Any, kind: str, path: str = "") -> list[str]:
    """Return the keys, by path, that an object of Kubernetes does not have."""
    if listed := re.fullmatch(r"list\[(.*)\]", kind):
        return [key for index, each in enumerate(value) for key in _unknown(each, listed[1], f"{path}[{index}]")]
    if not kind.startswith("V1"):
        return []
    model = getattr(client, kind)
    named = {there: model.openapi_types[here] for here, there in model.attribute_map.items()}
    keys: list[str] = []
    for key, each in value.items():
        keys += _unknown(each, named[key], f"{path}.{key}") if key in named else [f"{path}.{key}"]
    return keys


def test_the_fields_of_the_ray_cluster_are_those_of_its_api() -> None:
    _, cluster = _manifests()
    _RayCluster.model_validate(cluster)
    wrong = copy.deepcopy(cluster)
    wrong["spec"]["authOption"] = wrong["spec"].pop("authOptions")
    with pytest.raises(ValidationError, match="authOption"):
        _RayCluster.model_validate(wrong)


def _groups() -> list[dict[str, Any]]:
    spec = _manifests()[1]["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_pods_and_policy_are_objects_of_kubernetes() -> None:
    policy, _ = _manifests()
    assert _unknown(policy, "V1NetworkPolicy") == []
    for group in _groups():
        assert _unknown(group["template"], "V1PodTemplateSpec") == []
    (container,) = _groups()[0]["template"]["spec"]["containers"]
    assert _unknown({"spec": {"containers": [{**container, "imge": ""}]}}, "V1PodTemplateSpec") == [
        ".spec.containers[0].imge"
    ]


def test_only_the_cluster_reaches_its_ports_dagster_its_job_server_and_only_with_the_token() -> None:
    policy, cluster = _manifests()
    ours = {"podSelector": {"matchLabels": {"ray.io/cluster": cluster["metadata"]["name"]}}}
    assert {"podSelector": policy["spec"]["podSelector"]} == ours
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    among_themselves, jobs = policy["spec"]["ingress"]
    assert among_themselves == {"from": [ours]}
    assert jobs == {
        "from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "dagster"}}}],
        "ports": [{"port": 8265}],
    }
    assert cluster["spec"]["authOptions"]["mode"] == "token"
    assert cluster["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_secrets_come_from_secrets_and_the_instance_is_that_of_the_other_pods() -> None:
    (deployed,) = yaml.safe_load_all((DOCKER / "k8s-values.yaml").read_text())
    for group in _groups():
        (container,) = group["template"]["spec"]["containers"]
        environment = {each["name"]: each.get("value") or each["valueFrom"] for each in container["env"]}
        given = {name for name, value in environment.items() if isinstance(value, str)}
        assert not [name for name in given if re.search(r"PASSWORD|SECRET|TOKEN|KEY", name)]
        password = environment["DAGSTER_POSTGRES_PASSWORD"]["secretKeyRef"]
        assert password == {"name": deployed["global"]["postgresqlSecretName"], "key": "postgresql-password"}
        assert environment["DAGSTER_POSTGRES_HOST"] == deployed["postgresql"]["postgresqlHost"]
        asked = set(re.findall(r"env: (DAGSTER_POSTGRES_\w+)", (DOCKER / "dagster.yaml").read_text()))
        assert asked <= environment.keys()


def test_pods_are_unprivileged_of_this_version_and_send_no_statistics() -> None:
    for group in _groups():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["image"].endswith(f":{PROJECT['version']}")
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert _manifests()[1]["spec"]["rayVersion"] == RAY_VERSION


def test_ray_reads_the_parameters_of_the_pods_and_probes_ask_a_port_that_it_opens() -> None:
    head, worker = (
        _parsed([f"--{name}" if value == "true" else f"--{name}={value}" for name, value in parameters.items()])
        for parameters in (group["rayStartParams"] for group in _groups())
    )
    assert head["include_dashboard"] is False
    probed = [group["template"]["spec"]["containers"][0]["readinessProbe"]["tcpSocket"]["port"] for group in _groups()]
    assert probed == [6379, worker["node_manager_port"]]


def test_dagster_accepts_the_run_launcher_at_the_end_of_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = (DOCKER / "dagster.yaml").read_text() + (DOCKER / "dagster-ray.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(both)
    for name in re.findall(r"env: (\w+)", both):
        monkeypatch.setenv(name, "5432")
    valid, _ = dagster_instance_config(str(tmp_path))
    launcher = valid["run_launcher"]
    assert (launcher["module"], launcher["class"]) == ("dagster_ray", "RayRunLauncher")
    passed = launcher["config"]["ray"]["env_vars"]
    assert {"RECMODELS_COMPUTE=ray", "RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0"} <= set(passed)
    assert not [name for name in passed if re.search(r"PASSWORD|SECRET|AUTH_TOKEN|API_KEY", name)]


def test_dagster_ray_accepts_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dagster_ray", reason="dagster-ray is no dependency of this project")
    from dagster._config import process_config, resolve_to_config_type

    settings = yaml.safe_load((DOCKER / "dagster-ray.yaml").read_text())["run_launcher"]
    monkeypatch.setenv("RAY_JOBS_ADDRESS", "http://10.0.0.10:8265")
    launcher = getattr(importlib.import_module(settings["module"]), settings["class"])
    schema = resolve_to_config_type(launcher.config_type())
    assert process_config(schema, settings["config"]).success
    assert not process_config(schema, {"ray": {**settings["config"]["ray"], "adress": "10.0.0.10"}}).success
