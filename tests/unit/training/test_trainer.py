"""The training loop: when it stops, what it keeps, what it draws, and that it can be resumed."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recmodels.errors import InputError, PermanentFailure
from recmodels.models.base import Batch, Model
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import MODELS, build_model, resolve_config
from recmodels.training import loop
from recmodels.training.trainer import EpochRecord, FitResult, fit


@pytest.fixture(scope="module")
def data(checkerboard) -> TrainingData:
    return checkerboard.data()


def build(data: TrainingData, name: str = "bpr", seed: int = 0, **training: object) -> Model:
    training = {"batch_size": 100, "learning_rate": 0.01, "epochs": 4, "restricted_neighbours": 4, **training}
    settings: dict[str, object] = {"embedding_size": 8, "training": training}
    if "neighbours" in type(resolve_config(name)).model_fields:
        settings["neighbours"] = 4
    return build_model(name, resolve_config(name, settings), data, seed)


def with_valid_recalls(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    sequence = iter(values)
    monkeypatch.setattr(loop.ValidationRecall, "__call__", lambda *arguments: next(sequence))


@pytest.mark.parametrize("patience", [0, 2])
def test_training_stops_at_the_first_epoch_beyond_the_patience(data, monkeypatch, patience: int) -> None:
    with_valid_recalls(monkeypatch, [0.1, 0.3, 0.3, 0.2, 0.1, 0.2, 0.1, 0.1])
    result = fit(build(data, epochs=8, patience=patience), data, seed=0)
    # The best is epoch 1; an equal value is no improvement.
    assert result.best_epoch == 1
    assert result.history.height == 1 + 1 + patience + 1
    assert result.stopped_early


def test_a_gain_far_below_the_fourth_decimal_counts(data, monkeypatch) -> None:
    with_valid_recalls(monkeypatch, [0.1, 0.1 + 1e-9, 0.1 + 2e-9, 0.1])
    result = fit(build(data, epochs=4, patience=0), data, seed=0)
    assert result.best_epoch == 2
    assert result.best_valid_recall == 0.1 + 2e-9


def test_the_parameters_of_the_best_epoch_are_kept(data, monkeypatch) -> None:
    with_valid_recalls(monkeypatch, [0.1, 0.5, 0.2, 0.3])
    model = build(data, epochs=4)
    seen: list[dict[str, torch.Tensor]] = []

    def remember(record: EpochRecord) -> None:
        seen.append({key: value.clone() for key, value in model.state_dict().items()})

    result = fit(model, data, seed=0, on_epoch=[remember])
    assert not result.stopped_early
    assert all(torch.equal(seen[1][key], value) for key, value in model.state_dict().items())
    assert torch.equal(model.ranker().user_embeddings, result.ranker.user_embeddings)


def test_the_watched_figure_is_recall_20_on_validation_pairs(data, checkerboard) -> None:
    from recmodels.evaluation.evaluator import evaluate

    result = fit(build(data, epochs=1), data, seed=0)
    pairs = checkerboard.pairs("valid")
    expected = evaluate(result.ranker, data.train_pairs, pairs).value("recall", 20)
    assert result.best_valid_recall == pytest.approx(expected)


def test_history_and_callbacks_tell_the_same(data) -> None:
    records: list[EpochRecord] = []
    result = fit(build(data, "freedom", epochs=3), data, seed=0, on_epoch=[records.append])
    assert result.history["epoch"].to_list() == [0, 1, 2]
    assert result.history["valid_recall"].to_list() == [record.valid_recall for record in records]
    parts = [name for name in result.history.columns if name.startswith("loss_")]
    assert parts == ["loss_bpr", "loss_image", "loss_text"]
    sums = result.history.select(sum=sum(result.history[part] for part in parts))["sum"]
    assert result.history["loss"].to_list() == pytest.approx(sums.to_list())


def test_the_step_size_falls_as_configured(data) -> None:
    result = fit(
        build(data, epochs=3, learning_rate=0.01, learning_rate_factor=0.5, learning_rate_interval=2), data, seed=0
    )
    assert result.history["learning_rate"].to_list() == pytest.approx([0.01, 0.01 * 0.5**0.5, 0.005])


def test_an_epoch_shows_every_pair_once_with_a_true_negative(data, monkeypatch) -> None:
    model = build(data, epochs=2)
    batches: list[tuple[torch.Tensor, ...]] = []
    loss = model.loss
    monkeypatch.setattr(model, "loss", lambda batch: batches.append(batch) or loss(batch))
    fit(model, data, seed=0)
    per_epoch = math.ceil(len(data.train_users) / 100)
    assert len(batches) == 2 * per_epoch
    assert [len(batch[0]) for batch in batches[: per_epoch - 1]] == [100] * (per_epoch - 1)
    known = set(zip(*(ids.tolist() for ids in data.train_pairs), strict=True))
    orders = []
    for epoch in range(2):
        of_epoch = [batch[:3] for batch in batches[epoch * per_epoch :][:per_epoch]]
        users, positives, negatives = (torch.cat(part).tolist() for part in zip(*of_epoch, strict=True))
        pairs = list(zip(users, positives, strict=True))
        assert len(pairs) == len(known)
        assert set(pairs) == known
        assert not known & set(zip(users, negatives, strict=True))
        assert set(negatives) <= set(data.train_items.tolist())
        orders.append(pairs)
    assert orders[0] != orders[1]


def test_augmentation_adds_pairs_and_restriction_bars_neighbours_of_positives(data, monkeypatch) -> None:
    seen: dict[bool, tuple[set[tuple[int, int]], set[tuple[int, int]]]] = {}
    for restricted in (False, True):
        model = build(data, epochs=20, restricted_negatives=restricted, augmentation=restricted)
        positives: set[tuple[int, int]] = set()
        negatives: set[tuple[int, int]] = set()
        loss = model.loss

        def record(batch, positives=positives, negatives=negatives, loss=loss):
            positives.update(zip(batch.users.tolist(), batch.positives.tolist(), strict=True))
            negatives.update(zip(batch.users.tolist(), batch.negatives.tolist(), strict=True))
            return loss(batch)

        monkeypatch.setattr(model, "loss", record)
        fit(model, data, seed=0)
        seen[restricted] = positives, negatives
    train = set(zip(*(ids.tolist() for ids in data.train_pairs), strict=True))
    added = set(zip(data.added_users.tolist(), data.added_items.tolist(), strict=True))
    assert seen[False][0] == train
    assert seen[True][0] == train | added
    edges: dict[int, set[int]] = {}
    for table in data.item_knn.values():
        # As many as the model's item graph holds: the fifth neighbour of the table counts for neither.
        for source, destination in table.filter(pl.col("rank") < 4).select("src", "dst").iter_rows():
            edges.setdefault(source, set()).add(destination)
    likely = {(user, item) for user, liked in train for item in edges[liked]} - train
    assert seen[False][1] & likely
    assert not seen[True][1] & (likely | added | train)
    fifth = {
        (user, destination)
        for table in data.item_knn.values()
        for source, destination in table.filter(pl.col("rank") == 4).select("src", "dst").iter_rows()
        for user, liked in train
        if liked == source
    }
    assert seen[True][1] & (fifth - likely - added - train)


def test_the_sampled_softmax_shares_negatives_and_bars_what_the_restriction_bars(data, monkeypatch) -> None:
    settings = {"loss": "sampled_softmax", "n_shared_negatives": 30, "restricted_negatives": True}
    model = build(data, epochs=1, augmentation=True, **settings)
    batches: list[tuple[torch.Tensor, ...]] = []
    loss = model.loss
    monkeypatch.setattr(model, "loss", lambda batch: batches.append(batch) or loss(batch))
    result = fit(model, data, seed=0)
    assert "loss_sampled_softmax" in result.history.columns
    forbidden = set(zip(*(ids.tolist() for ids in data.train_pairs), strict=True))
    forbidden |= set(zip(data.added_users.tolist(), data.added_items.tolist(), strict=True))
    edges = pl.concat(table.filter(pl.col("rank") < 4).select("src", "dst") for table in data.item_knn.values())
    neighbours: dict[int, set[int]] = {}
    for source, destination in edges.iter_rows():
        neighbours.setdefault(source, set()).add(destination)
    pairs = zip(*(ids.tolist() for ids in data.train_pairs), strict=True)
    forbidden |= {(user, item) for user, liked in pairs for item in neighbours[liked]}
    assert len({tuple(batch[2].tolist()) for batch in batches}) == len(batches)
    for users, _, negatives, barred in batches:
        assert negatives.shape == (30,)
        expected = [[(user, item) in forbidden for item in negatives.tolist()] for user in users.tolist()]
        assert barred.tolist() == expected


@pytest.mark.parametrize("loss", ["bpr", "sampled_softmax"])
def test_pairs_of_who_has_every_item_are_left_out_and_counted(data, monkeypatch, loss: str) -> None:
    everything = np.unique(data.train_items)
    others = data.train_users != 7
    users = np.concatenate([data.train_users[others], np.full(everything.size, 7)])
    items = np.concatenate([data.train_items[others], everything])
    order = np.lexsort((items, users))
    greedy = replace(data, train_users=users[order], train_items=items[order], train_times=None)
    model = build(greedy, "lightgcn", loss=loss)
    trained: set[int] = set()
    original = model.loss
    monkeypatch.setattr(model, "loss", lambda batch: trained.update(batch.users.tolist()) or original(batch))
    with pytest.warns(UserWarning, match=f"{everything.size} of {users.size} training pairs are left out"):
        result = fit(model, greedy, seed=0)
    assert trained == set(data.train_users.tolist()) - {7}
    assert result.n_left_out == everything.size
    assert result.ranker.is_finite()
    assert fit(build(greedy, "bm3", epochs=1), greedy, seed=0).n_left_out == 0


def test_where_everybody_has_everything_training_is_refused(data) -> None:
    users, items = (ids.ravel() for ids in np.meshgrid(np.arange(60), np.arange(80), indexing="ij"))
    full = replace(data, train_users=users, train_items=items, train_times=None, added_users=None, added_items=None)
    with pytest.raises(InputError, match="no negatives"):
        fit(build(full), full, seed=0)


def test_the_sampled_softmax_means_nothing_to_a_model_without_pairwise_loss(data) -> None:
    for name in ("bm3", "slmrec", "timemm", "bridge"):
        with pytest.raises(InputError, match=r"training\.loss: expected bpr.*found sampled_softmax"):
            build(data, name, loss="sampled_softmax")


def test_same_seed_same_bytes_and_another_seed_other_draws(data) -> None:
    first, again, other = (
        fit(build(data, "blast", epochs=2, batch_size=300), data, seed=seed).ranker.user_embeddings
        for seed in (1, 1, 2)
    )
    assert first.numpy().tobytes() == again.numpy().tobytes()
    assert not torch.equal(first, other)


def test_parameters_that_only_the_first_batch_reads_keep_their_momentum(data, monkeypatch) -> None:
    model = build(data, "lattice", epochs=1, learning_rate=0.01)
    # Each batch's loss sees the parameters before its step.
    before: list[torch.Tensor] = []
    gradients: list[torch.Tensor] = []
    loss = model.loss
    model.shares.register_hook(lambda gradient: gradients.append(gradient.clone()))
    monkeypatch.setattr(model, "loss", lambda batch: before.append(model.shares.detach().clone()) or loss(batch))
    fit(model, data, seed=0)
    (gradient,) = gradients
    # Adam's closed form for one gradient followed by zeros.
    position = before[0].double()
    for step, found in enumerate([*before[1:], model.shares.detach()], start=1):
        mean = 0.1 * 0.9 ** (step - 1) * gradient.double() / (1 - 0.9**step)
        square = 0.001 * 0.999 ** (step - 1) * gradient.double().square() / (1 - 0.999**step)
        position = position - 0.01 * mean / (square.sqrt() + 1e-8)
        torch.testing.assert_close(found.double(), position, rtol=1e-5, atol=1e-6)


def test_the_global_generator_is_not_touched(data) -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    for name in ("bm3", "lgmrec", "recgoat", "layergcn"):
        fit(build(data, name, epochs=1), data, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_loss_that_is_not_finite_stops_with_epoch_batch_and_advice(data, monkeypatch) -> None:
    model = build(data, epochs=3)
    calls = []
    loss = model.loss

    def failing(batch: Batch) -> dict[str, torch.Tensor]:
        calls.append(1)
        return {name: part * (math.nan if len(calls) == 16 else 1) for name, part in loss(batch).items()}

    monkeypatch.setattr(model, "loss", failing)
    per_epoch = math.ceil(len(data.train_users) / 100)
    where = f"epoch {15 // per_epoch}, batch {15 % per_epoch} of {per_epoch}"
    with pytest.raises(PermanentFailure, match=rf"{where}.*training.learning_rate \(now 0.01\)"):
        fit(model, data, seed=0)


def test_a_full_device_stops_with_epoch_batch_and_advice(data, monkeypatch) -> None:
    model = build(data)

    def failing(batch: Batch) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(model, "loss", failing)
    with pytest.raises(PermanentFailure, match=r"epoch 0, batch 0.*training.batch_size \(now 100\)"):
        fit(model, data, seed=0)


def test_cuda_where_there_is_none_is_refused(data) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match=r"training\.device"):
        build(data, device="cuda")


def test_no_validation_pairs_are_refused(data) -> None:
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(InputError, match="validation pairs"):
        fit(build(data), replace(data, valid_users=nothing, valid_items=nothing), seed=0)


def test_restricted_negatives_mean_nothing_to_a_model_without_negatives(data) -> None:
    with pytest.raises(InputError, match="restricted_negatives"):
        build(data, "bm3", restricted_negatives=True)
    fit(build(data, "bm3", augmentation=True, epochs=1), data, seed=0)


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if not spec.closed_form])
def test_half_precision_trains_near_single_and_keeps_float32_parameters(name: str, data) -> None:
    single, half = (
        fit(build(data, name, epochs=2, precision=precision), data, seed=0) for precision in ("float32", "bfloat16")
    )
    assert {tensor.dtype for tensor in half.ranker.tensors().values() if tensor.is_floating_point()} == {torch.float32}
    np.testing.assert_allclose(half.history["loss"], single.history["loss"], rtol=0.02)


def same(first: FitResult, second: FitResult) -> bool:
    times = ("training_seconds", "seconds")
    return (
        torch.equal(first.ranker.user_embeddings, second.ranker.user_embeddings)
        and torch.equal(first.ranker.item_embeddings, second.ranker.item_embeddings)
        and first.best_epoch == second.best_epoch
        and first.history.drop(times).equals(second.history.drop(times))
    )


@pytest.mark.parametrize("name", ["bpr", "lattice", "blast", "bm3", "lgmrec", "recgoat", "layergcn"])
def test_an_interrupted_training_ends_as_if_it_had_not_been(name: str, data, tmp_path: Path) -> None:
    settings = {"epochs": 5, "checkpoint_interval": 2}
    whole = fit(build(data, name, **settings), data, seed=4)

    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(build(data, name, **settings), data, seed=4, on_epoch=[interrupt], state_directory=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00002"]
    epochs: list[int] = []
    resumed = fit(
        build(data, name, **settings),
        data,
        seed=4,
        on_epoch=[lambda record: epochs.append(record.epoch)],
        state_directory=tmp_path,
    )
    assert epochs == [2, 3, 4]
    assert same(whole, resumed)
    # Again from the last state, as after a crash between the end of training and the storing of its result.
    assert same(whole, fit(build(data, name, **settings), data, seed=4, state_directory=tmp_path))


def test_a_training_that_is_killed_resumes_from_its_last_whole_state(data, tmp_path: Path) -> None:
    settings = {"epochs": 40, "checkpoint_interval": 1, "patience": 100}
    np.savez(tmp_path / "pairs.npz", train=np.stack(data.train_pairs), valid=[data.valid_users, data.valid_items])
    (tmp_path / "settings.json").write_text(json.dumps({"embedding_size": 8, "training": settings}))
    program = """
import sys, time
from pathlib import Path
import json, numpy as np, torch
from recmodels.models.registry import MODELS, build_model, resolve_config
from recmodels.models.inputs import TrainingData
from recmodels.training.trainer import fit
folder = Path(sys.argv[1])
pairs = np.load(folder / "pairs.npz", allow_pickle=False)
data = TrainingData(60, 80, *pairs["train"], *pairs["valid"])
model = build_model("lightgcn", resolve_config("lightgcn", json.loads((folder / "settings.json").read_text())), data, 0)
def tell(record):
    print(record.epoch, flush=True)
    time.sleep(0.02)
result = fit(model, data, seed=0, on_epoch=[tell], state_directory=folder / "state")
np.save(folder / "users.npy", result.ranker.user_embeddings.numpy())
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 7:
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    resumed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert int(resumed[0]) > 0
    assert resumed[-1] == "39"
    found = np.load(tmp_path / "users.npy", allow_pickle=False)
    pairs = TrainingData(60, 80, *data.train_pairs, data.valid_users, data.valid_items)
    model = build_model("lightgcn", resolve_config("lightgcn", {"embedding_size": 8, "training": settings}), pairs, 0)
    expected = fit(model, pairs, seed=0).ranker.user_embeddings.numpy()
    assert found.tobytes() == expected.tobytes()


def test_a_state_of_another_training_or_a_damaged_one_is_refused(data, tmp_path: Path) -> None:
    def interrupt(record: EpochRecord) -> None:
        if record.epoch == 1:
            raise KeyboardInterrupt

    def run(seed: int, **training: object) -> None:
        model = build(data, seed=seed, checkpoint_interval=1, **training)
        fit(model, data, seed=seed, on_epoch=[interrupt], state_directory=tmp_path)

    with pytest.raises(KeyboardInterrupt):
        run(0)
    with pytest.raises(InputError, match="another model, data, settings or seed"):
        run(1)
    with pytest.raises(InputError, match="another model, data, settings or seed"):
        run(0, learning_rate=0.5)
    (state,) = tmp_path.iterdir()
    (state / "state.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"whole training state.*Delete it"):
        run(0)
