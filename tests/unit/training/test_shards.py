"""Training in several processes that share the columns: the same model, to the byte for the same number of them."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch

from recmodels.errors import InputError, PermanentFailure, TransientFailure
from recmodels.models.base import Model
from recmodels.models.inputs import TrainingData
from recmodels.models.layers import columns
from recmodels.models.registry import MODELS, build_model, resolve_config
from recmodels.settings import Settings
from recmodels.training.trainer import EpochRecord, FitResult, fit

CAPABLE = ("bpr", "lightgcn", "layergcn", "freedom", "blast")
LOSS_TOLERANCE = 1e-5
"""Relative: losses are float32, sums of a few hundred terms in another order."""
EMBEDDING_TOLERANCE = 2e-5
"""Absolute, at values about 0.1: what Adam makes of such differences in some tens of steps of size 0.01."""


@pytest.fixture(scope="module")
def data(checkerboard) -> TrainingData:
    return checkerboard.data()


def build(data: TrainingData, name: str, shards: int, **training: object) -> Model:
    training = {"batch_size": 100, "learning_rate": 0.01, "epochs": 2, "device": "cpu", "shards": shards, **training}
    settings: dict[str, object] = {"embedding_size": 8, "training": training}
    if "neighbours" in type(resolve_config(name)).model_fields:
        settings["neighbours"] = training["restricted_neighbours"] = 4
    if name in ("freedom", "blast"):
        # At their own weight of a thousandth, the losses of features would hide what goes wrong in them.
        settings["modality_weight"] = 0.5
    return build_model(name, resolve_config(name, settings), data, 0)


def trained(data: TrainingData, name: str, shards: int, **training: object) -> tuple[Model, FitResult]:
    model = build(data, name, shards, **training)
    return model, fit(model, data, seed=0)


def assert_same_bytes(one: Model, other: Model) -> None:
    assert all(torch.equal(values, other.state_dict()[name]) for name, values in one.state_dict().items())


@pytest.mark.parametrize("name", CAPABLE)
def test_two_processes_train_the_model_of_one(data, name: str) -> None:
    (one, alone), (two, shared) = (trained(data, name, shards) for shards in (1, 2))
    parts = [column for column in alone.history.columns if column.startswith("loss")]
    for part in parts:
        assert shared.history[part].to_list() == pytest.approx(alone.history[part].to_list(), rel=LOSS_TOLERANCE)
    assert shared.history["valid_recall"].to_list() == pytest.approx(alone.history["valid_recall"].to_list(), abs=0.02)
    assert (shared.n_steps, shared.n_left_out) == (alone.n_steps, alone.n_left_out)
    for ours, theirs in zip(one.embeddings(), two.embeddings(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=EMBEDDING_TOLERANCE)
    start = build(data, name, 1).state_dict()
    for parameter, values in two.state_dict().items():
        # Every parameter has moved by far more than the tolerance: it was the training that agreed.
        moved = (values - start[parameter]).abs().max(dim=-1).values
        assert moved.max() > 100 * EMBEDDING_TOLERANCE
    assert_same_bytes(two, trained(data, name, 2)[0])


def test_the_sampled_softmax_and_four_processes_agree_too(data) -> None:
    settings = {"loss": "sampled_softmax", "n_shared_negatives": 20, "weight_decay": 1e-3}
    (one, alone), (four, shared) = (trained(data, "lightgcn", shards, **settings) for shards in (1, 4))
    assert shared.history["loss"].to_list() == pytest.approx(alone.history["loss"].to_list(), rel=LOSS_TOLERANCE)
    torch.testing.assert_close(one.state_dict(), four.state_dict(), rtol=0, atol=EMBEDDING_TOLERANCE)


@pytest.mark.parametrize("lost", ["the caller", "a process"])
def test_a_training_that_is_cut_off_goes_on_to_the_same_bytes(data, tmp_path: Path, lost: str) -> None:
    # So many that the processes are not through when the caller hears of the fifth.
    settings = {"epochs": 200, "patience": 200, "batch_size": 1000, "checkpoint_interval": 2}
    undisturbed, _ = trained(data, "freedom", 2, **settings)

    def disturb(record: EpochRecord) -> None:
        if record.epoch == 4:
            # A state is there before its epoch is told.
            assert {path.name for path in tmp_path.iterdir()} == {"shard-0-of-2", "shard-1-of-2"}
            if lost == "the caller":
                raise KeyboardInterrupt
            second = max(active_children(), key=lambda process: process.name)
            os.kill(second.pid or 0, signal.SIGKILL)

    with pytest.raises(KeyboardInterrupt if lost == "the caller" else TransientFailure):
        fit(build(data, "freedom", 2, **settings), data, seed=0, on_epoch=[disturb], state_directory=tmp_path)
    assert not active_children()
    seen: list[int] = []
    resumed = build(data, "freedom", 2, **settings)
    fit(resumed, data, seed=0, on_epoch=[lambda record: seen.append(record.epoch)], state_directory=tmp_path)
    assert 4 <= seen[0] < seen[-1] == 199
    assert_same_bytes(resumed, undisturbed)


def test_a_state_that_only_one_process_has_saved_is_not_gone_on_from(data, tmp_path: Path) -> None:
    settings = {"checkpoint_interval": 2, "patience": 60}
    undisturbed, _ = trained(data, "bpr", 2, epochs=6, **settings)
    for epochs in (4, 2):
        fit(build(data, "bpr", 2, epochs=epochs, **settings), data, seed=0, state_directory=tmp_path / str(epochs))
    # As if the first had saved epoch 4, and the second had been lost before.
    (tmp_path / "4/shard-1-of-2/epoch-00004").rename(tmp_path / "gone")
    for rank in (0, 1):
        saved = tmp_path / f"2/shard-{rank}-of-2/epoch-00002"
        saved.rename(tmp_path / f"4/shard-{rank}-of-2/epoch-00002")
    seen: list[int] = []
    model = build(data, "bpr", 2, epochs=6, **settings)
    fit(model, data, seed=0, on_epoch=[lambda record: seen.append(record.epoch)], state_directory=tmp_path / "4")
    assert seen == [2, 3, 4, 5]
    assert_same_bytes(model, undisturbed)
    assert {path.name for path in tmp_path.glob("4/shard-*/*")} == {"epoch-00006"}


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    program = """
from dataclasses import replace
from multiprocessing import active_children
from recmodels.models.example import example_data
from recmodels.models.registry import build_model, resolve_config
from recmodels.training.trainer import fit
loop = {"epochs": 10**6, "patience": 10**6, "shards": 2, "device": "cpu"}
data = example_data()
def tell(record):
    if not record.epoch:
        print(*(process.pid for process in active_children()), flush=True)
if __name__ == "__main__":
    fit(build_model("bpr", resolve_config("bpr", {"training": loop}), data, 0), data, seed=0, on_epoch=[tell])
"""
    (tmp_path / "train.py").write_text(program)
    with subprocess.Popen([sys.executable, str(tmp_path / "train.py")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(children) == 2
    deadline = time.monotonic() + 10
    while any(map(_runs, children)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_goes_wrong_in_a_process_is_raised_as_itself_and_what_it_warns_of_is_warned(data) -> None:
    with pytest.raises(PermanentFailure, match="the loss is not finite"):
        trained(data, "bpr", 2, learning_rate=1e30)
    items = np.unique(data.train_items)
    more = np.setdiff1d(items, data.train_items[data.train_users == 0])
    users, liked = np.r_[np.zeros_like(more), data.train_users], np.r_[more, data.train_items]
    order = np.lexsort((liked, users))
    all_of_them = replace(data, train_users=users[order], train_items=liked[order], train_times=None)
    with pytest.warns(UserWarning, match="training pairs are left out") as warned:
        _, result = trained(all_of_them, "bpr", 2, epochs=1)
    assert len(warned) == 1
    assert result.n_left_out == items.size


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(CAPABLE)))
def test_a_model_that_mixes_columns_refuses_when_it_is_configured(name: str) -> None:
    with pytest.raises(InputError, match=rf"training.shards of {name}: expected 1, .* found 2\.$"):
        resolve_config(name, {"training": {"shards": 2}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_size": 63}, "expected a divisor of embedding_size 63, found 2"),
        ({"trainable_features": True}, "expected 1 with trainable_features"),
        ({"training": {"compile": True}}, "expected 1 with training.compile"),
    ],
)
def test_what_cannot_be_cut_is_refused_when_it_is_configured(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_config("freedom", {"training": {"shards": 2}}, settings)


def test_one_shard_is_as_if_there_was_no_such_setting() -> None:
    usual, two = (Settings.of(resolve_config("bpr", {"training": {"shards": shards}})) for shards in (1, 2))
    assert "training.shards" not in usual.values
    assert "shards" not in resolve_config("bpr").model_dump()["training"]
    assert usual.digest == Settings.of(resolve_config("bpr")).digest != two.digest
    assert two.changes_since(usual.values) == ["training.shards 1 -> 2"]
    assert usual.changes_since(two.values) == ["training.shards 2 -> 1"]


def test_alone_a_sum_over_processes_is_the_tensor_itself() -> None:
    x = torch.ones(3, requires_grad=True)
    assert columns.total(x) is x
    assert columns.n_processes() == 1
