"""A search does what it says: seeded, resumable, pruned by the median, within its budget, and blind to test rows."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from recmodels.errors import InputError
from recmodels.evaluation.evaluator import evaluate
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import MODELS, build_model, register_model, resolve_config
from recmodels.models.spec import ModelSpec
from recmodels.models.zoo import bpr
from recmodels.schemas.tables import validated_table
from recmodels.training.trainer import EpochRecord, fit
from recmodels.tuning import tune as tune_module
from recmodels.tuning.config import Parameter, Space, TuningConfig
from recmodels.tuning.result import tuned_settings
from recmodels.tuning.study import opened_study
from recmodels.tuning.tune import TuningResult, tune

SPACE: Space = {
    "n_layers": Parameter(low=1, high=4, grid=(1, 2)),
    "training.learning_rate": Parameter(low=1e-5, high=0.1, log=True),
}
TUNING = TuningConfig(
    trials=9, epochs=12, patience=5, startup_trials=3, warmup_epochs=2, seed=4, spaces={"lightgcn": SPACE}
)
CONFIGURE = partial(resolve_config, "lightgcn", {"embedding_size": 8, "training": {"device": "cpu"}})


@pytest.fixture(scope="module")
def data(checkerboard) -> TrainingData:
    return checkerboard.data()


def search(data: TrainingData, tuning: TuningConfig = TUNING, **options: object) -> TuningResult:
    return tune("lightgcn", CONFIGURE, data, tuning, **options)


@pytest.fixture(scope="module")
def whole(data: TrainingData) -> TuningResult:
    return search(data)


def found(result: TuningResult) -> list[dict]:
    return result.table.drop("seconds").to_dicts()


class Killed(BaseException):
    """What ends a process does not ask handlers of errors."""


def killed_at(number: int, epoch: int) -> Callable[[int, EpochRecord], None]:
    def watch(now: int, record: EpochRecord) -> None:
        if (now, record.epoch) == (number, epoch):
            raise Killed

    return watch


def test_the_same_seed_gives_the_same_tries_and_another_seed_others(data: TrainingData, whole: TuningResult) -> None:
    validated_table("tuning", whole.table)
    assert found(search(data)) == found(whole)
    other = search(data, TUNING.model_copy(update={"seed": 5}))
    sampled = pl.col("origin") == "sampled"
    assert other.table.filter(sampled)["settings"].to_list() != whole.table.filter(sampled)["settings"].to_list()


def test_todays_settings_and_the_published_grid_come_first(whole: TuningResult) -> None:
    assert whole.table["origin"].to_list() == ["current", "published", "published", *["sampled"] * 6]
    settings = [json.loads(text) for text in whole.table["settings"]]
    assert [tried["n_layers"] for tried in settings[:3]] == [3, 1, 2]
    assert all(tried["training"]["patience"] == 5 for tried in settings)


@pytest.mark.parametrize("points", [[(0, 0)], [(1, 3)], [(4, 0), (4, 1), (7, 2)]])
def test_a_killed_search_goes_on_as_if_it_had_not_been(
    points: list[tuple[int, int]], data: TrainingData, whole: TuningResult, tmp_path: Path
) -> None:
    for number, epoch in points:
        with pytest.raises(Killed):
            search(data, folder=tmp_path, on_epoch=killed_at(number, epoch))
    begun: list[int] = []
    last = search(data, folder=tmp_path, on_epoch=lambda number, record: begun.append(number))
    assert found(last) == found(whole)
    assert min(begun) == points[-1][0]


def test_a_process_that_is_killed_in_the_middle_of_a_line_loses_the_running_try_alone(
    data: TrainingData, whole: TuningResult, tmp_path: Path
) -> None:
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pickle
from test_tuning_search import search
from recmodels.models.inputs import TrainingData

def kill(number, record):
    if (number, record.epoch) == (5, 1):
        os.kill(os.getpid(), signal.SIGKILL)

search(TrainingData(**dict(numpy.load({str(tmp_path / "data.npz")!r}))), folder=Path({str(tmp_path)!r}), on_epoch=kill)
"""
    code = code.replace("import pickle\n", "import numpy\nfrom pathlib import Path\n")
    fields = ("n_users", "n_items", "train_users", "train_items", "valid_users", "valid_items")
    np.savez(tmp_path / "data.npz", **{name: getattr(data, name) for name in fields})
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert killed.returncode == -9, killed.stderr
    (journal,) = tmp_path.glob("*/tries.jsonl")
    with journal.open("a") as file:
        file.write('{"op_code":7,"trial')
    journal.with_name("tries.jsonl.lock").symlink_to(journal)
    begun: list[int] = []
    plain = TrainingData(**{name: getattr(data, name) for name in fields})
    assert found(search(plain, folder=tmp_path, on_epoch=lambda number, _: begun.append(number))) == found(whole)
    assert min(begun) == 5


FEW: Space = {"n_layers": Parameter(low=1, high=2), "training.learning_rate": Parameter(choices=(1e-3, 1e-2))}


@pytest.mark.parametrize("space", [SPACE, FEW], ids=["one that learns", "proposed twice"])
def test_a_search_goes_on_wherever_its_journal_ends(space: Space, data: TrainingData, tmp_path: Path) -> None:
    # Tries at random and one that learns from them, so that it would show if one of them were forgotten; and proposals
    # that were tried already, which are no tries.
    tuning = TUNING.model_copy(update={"trials": 7, "epochs": 2, "spaces": {"lightgcn": space}})
    whole = found(search(data, tuning, folder=tmp_path / "whole"))
    (journal,) = (tmp_path / "whole").glob("*/tries.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    entries = [json.loads(line) for line in lines]
    assert {entry["op_code"] for entry in entries} >= {0, 4, 5, 6, 7, 8}
    for end in range(len(lines)):
        copy = tmp_path / str(end) / journal.parent.name / journal.name
        copy.parent.mkdir(parents=True)
        copy.write_text("".join(lines[:end]))
        assert found(search(data, tuning, folder=tmp_path / str(end))) == whole, lines[:end][-1:]


def test_a_larger_budget_goes_on_and_a_smaller_one_is_a_part(
    data: TrainingData, whole: TuningResult, tmp_path: Path
) -> None:
    few = TUNING.model_copy(update={"trials": 5})
    begun: list[int] = []
    for tuning in (few, TUNING, few):
        result = search(data, tuning, folder=tmp_path, on_try=lambda tried: begun.append(tried.number))
        assert result.table["settings"].to_list() == whole.table["settings"].to_list()[: tuning.trials]
    assert begun == list(range(9))
    search(data, few, folder=tmp_path, key="other data", on_try=lambda tried: begun.append(tried.number))
    assert begun == [*range(9), *range(5)]


def test_a_try_is_pruned_where_its_best_is_below_the_median_and_nowhere_else(data: TrainingData) -> None:
    curves: dict[int, list[float]] = {}
    states: dict[int, str] = {}
    tuning = TUNING.model_copy(update={"trials": 16, "patience": 12})
    search(
        data,
        tuning,
        on_epoch=lambda number, record: curves.setdefault(number, []).append(record.valid_recall),
        on_try=lambda tried: states.update({tried.number: tried.outcome.state}),
    )
    expected = dict.fromkeys(curves, "complete")
    for number, curve in curves.items():
        complete = [curves[other] for other in range(number) if expected[other] == "complete"]
        for epoch in range(tuning.warmup_epochs, len(curve)):
            if len(complete) >= tuning.startup_trials and max(curve[: epoch + 1]) < statistics.median(
                other[epoch] for other in complete
            ):
                expected[number] = "pruned"
                assert len(curve) == epoch + 1
                break
    assert states == expected
    assert "pruned" in states.values()


class Clock:
    """A clock on which every look takes a minute."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 60
        return self.now


def test_the_hours_hold_in_the_middle_of_a_try_and_over_several_runs(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A try of 12 epochs looks at the clock 14 times, so that it takes 13 minutes.
    monkeypatch.setattr(tune_module, "time", Clock())
    tuning = TUNING.model_copy(update={"patience": 12, "startup_trials": 100, "hours": 0.5})
    first = search(data, tuning, folder=tmp_path).table
    assert first["state"].to_list() == ["complete", "complete", "unfinished"]
    assert first["seconds"].to_list() == [13 * 60, 13 * 60, 6 * 60]
    assert first["epochs"].to_list() == [12, 12, 5]
    again = search(data, tuning.model_copy(update={"hours": 0.7}), folder=tmp_path).table
    assert again["state"].to_list() == ["complete", "complete", "complete", "unfinished"]
    # The epoch that goes beyond the hours, and the last look at the clock.
    assert again["seconds"].sum() <= 0.7 * 3600 + 2 * 60
    assert again["settings"][:3].to_list() == first["settings"].to_list()
    with pytest.raises(InputError, match="a complete try within the budget"):
        search(data, tuning.model_copy(update={"hours": 0.1}))


def test_the_best_settings_read_back_train_to_the_figure_that_was_recorded(
    data: TrainingData, whole: TuningResult
) -> None:
    best = whole.table.filter("chosen").row(0, named=True)
    complete = whole.table.filter(pl.col("state") == "complete")
    assert best["valid_recall"] == complete["valid_recall"].max()
    model = build_model("lightgcn", CONFIGURE(tuned_settings(whole.table)), data, TUNING.seed)
    result = fit(model, data, seed=TUNING.seed)
    assert (result.best_valid_recall, result.best_epoch) == (best["valid_recall"], best["best_epoch"])
    with pytest.raises(InputError, match="one that is chosen"):
        tuned_settings(whole.table.filter(~pl.col("chosen")))


def test_the_importance_of_what_decides_is_larger(data: TrainingData) -> None:
    shares = search(data, TUNING.model_copy(update={"trials": 14, "startup_trials": 20})).importances
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares) == ["training.learning_rate", "n_layers"]


def test_what_training_refuses_is_kept_as_failed_but_todays_settings_end_the_search(data: TrainingData) -> None:
    space: Space = {"training.learning_rate": Parameter(choices=(1e-3, 1e30))}
    tuning = TUNING.model_copy(update={"spaces": {"lightgcn": space}})
    result = search(data, tuning)
    assert result.exhausted
    assert result.table["state"].to_list() == ["complete", "failed"]
    assert "the loss is not finite" in result.table["reason"][1]
    with pytest.raises(Exception, match="the loss is not finite"):
        tune("lightgcn", lambda over: CONFIGURE({"training": {"learning_rate": 1e30}}, over), data, tuning)


def test_a_weight_of_features_that_the_data_lack_is_not_searched(checkerboard) -> None:
    bare = checkerboard.data("item_text_embeddings", "item_image_embeddings")
    configure = partial(
        resolve_config, "freedom", {"modality_weight": 0, "neighbours": 5, "training": {"device": "cpu"}}
    )
    tuning = TuningConfig(trials=2, epochs=1)
    searched = [json.loads(text).keys() for text in tune("freedom", configure, bare, tuning).table["settings"]]
    assert not any("modality_weight" in names for names in searched)
    assert all("edge_drop" in names for names in searched)


@pytest.mark.parametrize("model", [name for name, spec in MODELS.items() if spec.closed_form])
def test_models_in_closed_form_are_searched_between_their_listed_values(model: str, data: TrainingData) -> None:
    config = resolve_config(model)
    tries = np.prod([len(value) for name, value in config if name != "training"])
    result = tune(model, partial(resolve_config, model), data, TuningConfig(trials=int(tries) + 2))
    assert result.table["epochs"].to_list() == [1] * (tries + 2)
    assert result.table["origin"].value_counts().sort("count")["count"].to_list() == [1, 2, tries - 1]
    grid = fit(build_model(model, config, data, 0), data, seed=0)
    assert result.table["valid_recall"][:tries].max() == grid.best_valid_recall


def test_two_processes_do_not_search_in_one_folder(tmp_path: Path) -> None:
    with opened_study(tmp_path, SPACE, TUNING), pytest.raises(InputError, match="one search at a time"):
        opened_study(tmp_path, SPACE, TUNING).__enter__()


def test_a_journal_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "tries.jsonl").write_text("what is this?\nno journal\n")
    with pytest.raises(InputError, match="an Optuna journal"), opened_study(tmp_path, SPACE, TUNING):
        pass


class LeakyModel(bpr.Model):
    """Wants to be chosen by the test rows."""

    def __init__(self, config: bpr.Config, data: TrainingData, generator: torch.Generator) -> None:
        super().__init__(config, data, generator)
        self.kept = data

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        data = self.kept
        evaluate(self.ranker(), data.train_pairs, (data.test_users, data.test_items))  # pyright: ignore


@pytest.fixture
def leaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(sys.modules, "leaky_model", SimpleNamespace(Model=LeakyModel, Config=bpr.Config))
    register_model(ModelSpec("leaky", "Leaky", "this test", "leaky_model"))
    yield "leaky"
    del MODELS["leaky"]


def test_whoever_evaluates_on_test_rows_in_a_try_finds_none(leaky: str, checkerboard) -> None:
    data = checkerboard.data()
    with pytest.raises(AttributeError, match="test_users"):
        tune(leaky, partial(resolve_config, leaky), data, TuningConfig(trials=1))
    test = set(zip(*(ids.tolist() for ids in checkerboard.pairs("test")), strict=True))
    arrays = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    for name in ("train", "valid", "added"):
        pairs = set(zip(arrays[f"{name}_users"].tolist(), arrays[f"{name}_items"].tolist(), strict=True))
        assert name == "added" or not pairs & test
    assert {name for name in arrays if name.endswith("_users")} == {
        "n_users",
        "train_users",
        "valid_users",
        "added_users",
    }
