"""The container files are pinned, unprivileged, without secrets, and agree with the code they run."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyOptions
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, UserDefinedDagsterK8sConfig, construct_dagster_k8s_job

from assets.support.links import EXPLORER_VARIABLE
from assets.training import checkpoints
from pipelines.logs import LOG_VARIABLE

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
VARIANTS = {"cpu", "gpu"}
PINNED = re.compile(r"[a-z0-9/._-]+:v?\d+\.\d+(\.\d+)?(-[a-z0-9.-]+)?")


def _instructions() -> list[tuple[str, str]]:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def _compose(name: str = "compose.yaml") -> dict[str, Any]:
    return yaml.safe_load((DOCKER / name).read_text())


def _version() -> str:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


def test_base_images_are_pinned_and_the_process_is_not_root() -> None:
    instructions = _instructions()
    stages = [rest.split() for word, rest in instructions if word == "FROM"]
    names = {stage[-1] for stage in stages if len(stage) == 3}
    assert names >= VARIANTS
    bases = {stage[0] for stage in stages} - names - {"${VARIANT}"}
    assert bases
    assert all(PINNED.fullmatch(base) for base in bases)
    last = max(index for index, (word, _) in enumerate(instructions) if word == "FROM")
    users = [rest for word, rest in instructions[last:] if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


def test_dependencies_are_installed_under_the_constraints() -> None:
    commands = " && ".join(rest for word, rest in _instructions() if word == "RUN")
    installs = [part for part in commands.split("&&") if "pip install" in part]
    assert installs
    assert all("-c constraints.txt" in part for part in installs)


def test_what_is_copied_exists_and_is_let_through() -> None:
    sources = [
        source
        for word, rest in _instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert sorted(sources) == sorted(line[1:] for line in ignored if line.startswith("!"))
    assert all((REPOSITORY / source).exists() for source in sources)


def test_threads_do_not_spin_and_no_secret_is_baked_in() -> None:
    environment = " ".join(rest for word, rest in _instructions() if word == "ENV")
    assert "OMP_WAIT_POLICY=passive" in environment
    assert not re.search(r"PASSWORD|SECRET|TOKEN|API_KEY", DOCKERFILE.read_text())


def test_a_variant_is_an_extra_of_the_package_and_its_image_is_called_after_it() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras.keys() >= VARIANTS
    for name, variant in (("compose.yaml", "cpu"), ("compose.gpu.yaml", "gpu")):
        ours = _compose(name)["x-recmodels"]
        assert ours["build"].get("args", {}).get("VARIANT", "cpu") == variant
        assert ours["image"].startswith(f"recmodels-{variant}:")
        assert (DOCKER / ours["build"]["context"] / ours["build"]["dockerfile"]).resolve() == DOCKERFILE


def test_services_run_pinned_images() -> None:
    for name in ("compose.yaml", "compose.gpu.yaml"):
        images = {service["image"] for service in _compose(name)["services"].values() if "image" in service}
        assert images
        assert all(PINNED.fullmatch(image) for image in images)
        assert all(image.endswith(f":{_version()}") for image in images if image.startswith("recmodels"))


def test_ports_are_published_on_the_loopback_address_only() -> None:
    published = [port for service in _compose()["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_secrets_come_from_the_environment() -> None:
    for service in _compose()["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|KEY", name):
                assert re.fullmatch(r"\$\{\w+:[?-][^}]*\}", value), name
                assert not re.fullmatch(r"\$\{\w+:-.+\}", value), name


def test_nothing_starts_before_what_it_needs() -> None:
    services = _compose()["services"]
    conditions = {
        name: {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    assert conditions["init"] == {"postgres": "service_healthy"}
    assert conditions["code"] == {"init": "service_completed_successfully"}
    assert conditions["explorer"] == conditions["code"]
    assert conditions["webserver"] == conditions["daemon"] == {"code": "service_healthy"}
    awaited = {other for each in conditions.values() for other, how in each.items() if how == "service_healthy"}
    assert all("healthcheck" in services[name] for name in awaited)


def test_every_service_of_ours_sees_what_a_user_may_set() -> None:
    services = _compose()["services"]
    ours = [service for service in services.values() if service["image"].startswith("recmodels")]
    assert len(ours) == 5
    for service in ours:
        for name in ("RECMODELS_CATALOGUE", "RECMODELS_SEEDS", LOG_VARIABLE, EXPLORER_VARIABLE):
            assert service["environment"][name].startswith(f"${{{name}:-")


def test_every_pool_of_the_assets_gets_a_limit() -> None:
    (_, _, script) = _compose()["services"]["init"]["command"]
    pools = {spec.op.pool for spec in checkpoints}
    assert pools == {"gpu"}
    for pool in pools | {"llm"}:
        assert f"dagster instance concurrency set {pool} " in script


def test_the_gpu_file_changes_only_services_that_exist() -> None:
    gpu = _compose("compose.gpu.yaml")["services"]
    assert gpu.keys() <= _compose()["services"].keys()
    for name in ("code", "ollama"):
        (device,) = gpu[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]


def test_the_instance_settings_are_valid_and_take_the_database_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = _compose()["services"]["code"]["environment"]
    settings = yaml.safe_load((DOCKER / "dagster.yaml").read_text())
    asked = re.findall(r"env: (\w+)", (DOCKER / "dagster.yaml").read_text() + (DOCKER / "workspace.yaml").read_text())
    images = DOCKERFILE.read_text()
    assert all(name in environment or f"{name}=" in images for name in asked)
    for name in asked:
        monkeypatch.setenv(name, "5432")
    valid, _ = dagster_instance_config(str(DOCKER))
    assert valid["storage"] == settings["storage"]
    assert valid["concurrency"]["pools"]["granularity"] == "op"
    assert valid["run_monitoring"]["free_slots_after_run_end_seconds"] > 0


def test_pods_are_unprivileged_and_of_this_version() -> None:
    values = yaml.safe_load((DOCKER / "k8s-values.yaml").read_text())
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["image"]["tag"] == _version()
    assert deployment["podSecurityContext"]["runAsNonRoot"]
    (user,) = {rest for word, rest in _instructions() if word == "USER"}
    assert user == f"{deployment['podSecurityContext']['runAsUser']}:{deployment['podSecurityContext']['runAsGroup']}"
    assert values["concurrency"]["pools"]["granularity"] == "op"
    assert "postgresqlPassword" not in values["postgresql"]


def test_the_gpu_tag_asks_for_a_gpu_and_its_node() -> None:
    tag = json.loads((DOCKER / "k8s-gpu-tag.json").read_text())["dagster-k8s/config"]
    assert int(tag["container_config"]["resources"]["limits"]["nvidia.com/gpu"]) == 1
    assert tag["pod_spec_config"]["node_selector"]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _refusal(compose: str) -> str:
    """Return why a compose file is not what the Compose specification allows, an empty string if it is."""

    def default(variable: re.Match[str]) -> str:
        return variable["default"] if variable["kind"].endswith("-") else "given"

    options = PyOptions()
    options.apply_merge = True
    try:
        options.from_yaml(re.sub(r"\$\{\w+(?P<kind>:[?-])(?P<default>[^}]*)\}", default, compose)).validate()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_the_compose_files_follow_the_specification(name: str) -> None:
    text = (DOCKER / name).read_text()
    assert _refusal(text) == ""
    assert "extension key `imge`" in _refusal(re.sub(r"^(\s+)image:", r"\1imge:", text, flags=re.MULTILINE))


def _with_underscores(settings: dict[str, Any]) -> dict[str, Any]:
    return {re.sub("([A-Z][^A-Z]+)", r"_\1", name).lower(): value for name, value in settings.items()}


def _launcher() -> dict[str, Any]:
    """Return the configuration that the chart makes of the values: it writes the settings' names with underscores."""
    values = yaml.safe_load((DOCKER / "k8s-values.yaml").read_text())
    launcher = values["runLauncher"]
    assert launcher["type"] == K8sRunLauncher.__name__
    settings = _with_underscores(launcher["config"]["k8sRunLauncher"])
    return settings | {"run_k8s_config": _with_underscores(settings["run_k8s_config"])}


def test_dagster_k8s_accepts_the_run_launcher() -> None:
    given_by_the_chart = {"dagster_home": "/opt/dagster", "instance_config_map": "dagster-instance"}
    schema = resolve_to_config_type(K8sRunLauncher.config_type())
    assert process_config(schema, _launcher() | given_by_the_chart).errors is None
    assert process_config(schema, _launcher() | {"imagePullPolicy": "Always"}).errors


def test_a_run_with_the_gpu_tag_is_a_pod_on_a_gpu_node() -> None:
    tag = json.loads((DOCKER / "k8s-gpu-tag.json").read_text())["dagster-k8s/config"]
    every_run = K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(_launcher()["run_k8s_config"]))
    tagged = every_run.merge(K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(tag)))
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(job_image="recmodels-gpu:0.1.0", dagster_home="/opt/dagster"),
        ["dagster"],
        "run",
        tagged.run_k8s_config,
    ).to_dict()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["node_selector"] == tag["pod_spec_config"]["node_selector"]
    assert pod["restart_policy"] == "Never"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["resources"]["requests"]["memory"] == "32Gi"
