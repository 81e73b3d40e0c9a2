"""Weights come at a commit and as safetensors; a pickle never runs code."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recmodels.errors import InputError
from recmodels.io.devices import resolve_device
from recmodels.io.hub import fetch_model, require_safetensors, weights_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A stand-in for the hub: one directory, and what was asked of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked: list[dict[str, Any]] = []

    def __call__(self, name: str, **options: Any) -> str:
        self.asked.append({"name": name} | options)
        return str(self.directory)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", stand_in)
    return stand_in


@pytest.mark.parametrize("revision", ["", "main", "v1.0", COMMIT[:7]])
def test_what_may_move_is_refused_without_asking_the_hub(revision: str, hub: Hub) -> None:
    with pytest.raises(InputError, match=r"model 'owner/model'.*no commit of 40 hexadecimal digits.*Name the commit"):
        fetch_model("owner/model", revision, ["*.safetensors"])
    assert not hub.asked


def test_a_commit_is_fetched_without_pickles(hub: Hub) -> None:
    save_file({"weight": torch.ones(2)}, hub.directory / "model.safetensors")
    assert fetch_model("owner/model", COMMIT, ["*.json", "*.safetensors"]) == hub.directory
    assert hub.asked == [
        {"name": "owner/model", "revision": COMMIT, "allow_patterns": ["*.json", "*.safetensors"]},
    ]


def test_a_commit_with_a_pickle_alone_is_kept_as_safetensors(hub: Hub) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"a.weight": shared, "b.weight": shared.T}, hub.directory / "pytorch_model.bin")
    require_safetensors(fetch_model("owner/model", COMMIT, ["*.safetensors"]))
    tensors = load_file(hub.directory / "model.safetensors")
    assert torch.equal(tensors["a.weight"], shared)
    assert torch.equal(tensors["b.weight"], shared.T)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_a_pickle_that_does_something_is_refused(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(tmp_path / "done")))
    with pytest.raises(InputError, match="owner/model"):
        fetch_model("owner/model", COMMIT, ["*.safetensors"])
    torch.save({"weight": Hostile(tmp_path / "done")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="owner/model"):
        fetch_model("owner/model", COMMIT, ["*.safetensors"])
    assert not (tmp_path / "done").exists()


def test_a_directory_of_pickles_is_refused_with_a_way_out(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin alone.*save_pretrained"):
        require_safetensors(tmp_path)
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    require_safetensors(tmp_path)
    (tmp_path / "2_Dense").mkdir()
    torch.save({"weight": torch.ones(2)}, tmp_path / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin alone"):
        require_safetensors(tmp_path)


def test_a_digest_is_that_of_names_contents_and_settings(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.md").write_text("not counted")
    first = weights_digest(tmp_path, ["*.json"])
    assert first == "7ecf17d336fa2fedb87b64e1801c5221789ed6a94c4e0cafa754313b59cce31c"
    assert weights_digest(tmp_path / "config.json", ["*.json"]) == first
    assert weights_digest(tmp_path, ["*.json"], "float16") != first
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert weights_digest(tmp_path, ["*.json"]) != first


def test_a_device_that_does_not_answer_is_refused_and_auto_takes_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert resolve_device("auto", setting="device").type == "mps"
    assert resolve_device("auto", setting="device", mps=False).type == "cpu"
    with pytest.raises(InputError, match="a CUDA device that answers"):
        resolve_device("cuda", setting="device")
