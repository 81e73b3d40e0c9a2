"""What holds for every model of the registry."""

import ast
import functools
import importlib
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recmodels.checkpoints.store import load_checkpoint, restore_model
from recmodels.errors import InputError
from recmodels.evaluation.evaluator import evaluate
from recmodels.models.base import AnyModel, Batch, Model
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import MODELS, build_model, resolve_config
from recmodels.ranking.ranker import Ranker
from recmodels.training.run import save_checkpoint
from recmodels.training.trainer import FitResult, fit

SMALL = {"embedding_size": 16, "neighbours": 4}
STEPWISE = [name for name, spec in MODELS.items() if not spec.closed_form]
CLOSED_FORM = [name for name, spec in MODELS.items() if spec.closed_form]


def _model(name: str) -> type[Model]:
    return importlib.import_module(MODELS[name].module).Model


PAIRWISE = [name for name in STEPWISE if _model(name).uses_negatives and _model(name).pairwise]


def overrides(name: str, **training: object) -> dict[str, object]:
    fields = type(resolve_config(name)).model_fields
    small = {key: value for key, value in SMALL.items() if key in fields}
    defaults = {"batch_size": 64, "learning_rate": 0.02, "epochs": 20, "restricted_neighbours": 4}
    return {**small, "training": {**defaults, **training}}


def build(name: str, data: TrainingData, seed: int = 0, **training: object) -> AnyModel:
    return build_model(name, resolve_config(name, overrides(name, **training)), data, seed)


def assert_same(first: Ranker, second: Ranker) -> None:
    tensors, others = first.tensors(), second.tensors()
    assert first.settings() == second.settings()
    assert tensors.keys() == others.keys() != set()
    assert all(torch.equal(tensor, others[key]) for key, tensor in tensors.items())


def train(name: str, data: TrainingData, seed: int = 0, **training: object) -> tuple[AnyModel, FitResult]:
    model = build(name, data, seed, **training)
    return model, fit(model, data, seed=seed)


@pytest.fixture(scope="module")
def data(checkerboard) -> TrainingData:
    return checkerboard.data()


Fits = Callable[[str], tuple[AnyModel, FitResult]]


@pytest.fixture(scope="module")
def trained(data) -> Fits:
    """Each model trained until it knows the checkerboard, once."""
    return functools.cache(lambda name: train(name, data))


@pytest.fixture(scope="module")
def trained_briefly(data) -> Fits:
    """Each model trained for two epochs, once."""
    return functools.cache(lambda name: train(name, data, epochs=2))


def images(inputs: Iterable[str]) -> set[str]:
    """The tables that a model does without where there are none."""
    return {table for table in inputs if "image" in table}


def explained_fields(settings: type) -> set[str]:
    """Return the fields of a class and its bases that have a docstring under them."""
    explained: set[str] = set()
    for base in settings.__mro__:
        if base.__module__.startswith("recmodels."):
            (declared,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            for field, below in itertools.pairwise(declared.body):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    explained.add(field.target.id)
    return explained


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    def test_the_checkerboard_is_solved(self, name: str, checkerboard, data, trained) -> None:
        _, result = trained(name)
        test = evaluate(result.ranker, data.train_pairs, checkerboard.pairs("test"), ks=(18,))
        # 18 liked items are not of training. Who knows the parity shows just these; chance would show a third of them.
        assert test.value("recall", 18) > 0.9

    def test_a_checkpoint_gives_the_same_scores(self, name: str, checkerboard, data, trained, tmp_path: Path) -> None:
        model, result = trained(name)
        tables = {"users": checkerboard.users, "items": checkerboard.items}
        save_checkpoint(
            tmp_path / "checkpoint", name=name, model=model, result=result, data=data, seed=0, provenance={}, **tables
        )
        stored = load_checkpoint(tmp_path / "checkpoint")
        assert stored.config == model.config
        assert_same(stored.ranker, result.ranker)
        assert_same(restore_model(stored, data).ranker(), result.ranker)

    def test_a_missing_input_is_named_at_construction(self, name: str, checkerboard) -> None:
        for need in MODELS[name].inputs - images(MODELS[name].inputs):
            with pytest.raises(InputError) as raised:
                build(name, checkerboard.data(need, need.replace("text", "image")))
            assert need in str(raised.value)

    def test_nothing_but_the_inputs_it_names_and_the_seed_decides(
        self, name: str, checkerboard, trained_briefly
    ) -> None:
        alone = checkerboard.data(*(checkerboard.tables.keys() - MODELS[name].inputs))
        (first, fewer), (second, more) = train(name, alone, epochs=2), trained_briefly(name)
        for values in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
            assert torch.equal(*values)
        assert_same(fewer.ranker, more.ranker)

    def test_unknown_settings_are_refused_by_name(self, name: str) -> None:
        with pytest.raises(InputError, match="embeding_size"):
            resolve_config(name, {"embeding_size": 8})
        with pytest.raises(InputError, match="learning_rate"):
            resolve_config(name, {"training": {"lr": 0.1}})

    def test_every_setting_is_explained(self, name: str) -> None:
        for settings in (type(resolve_config(name)), type(resolve_config(name).training)):
            assert settings.model_fields.keys() - explained_fields(settings) == set()

    def test_ranking_twice_gives_the_same_and_leaves_the_parameters_alone(self, name: str, trained) -> None:
        model, result = trained(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        assert_same(model.ranker(), result.ranker)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", STEPWISE)
class TestEveryModelTrainedInSteps:
    def test_the_gradient_reaches_every_parameter(self, name: str, data: TrainingData) -> None:
        model = build(name, data)
        model.train()
        generator = torch.Generator().manual_seed(1)
        model.on_epoch_start(0, generator)
        users, positives = (torch.from_numpy(ids[::3].copy()) for ids in data.train_pairs)
        negatives = torch.randint(data.n_items, positives.shape, generator=generator)
        batch = Batch(users, positives, negatives if model.uses_negatives else negatives[:0])
        sum(model.loss(batch).values()).backward()
        untouched = [
            key for key, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0
        ]
        assert untouched == []

    def test_the_loss_falls(self, name: str, trained) -> None:
        _, result = trained(name)
        losses = result.history["loss"].to_list()
        assert losses[-1] < losses[0]

    def test_another_seed_gives_other_parameters(self, name: str, data: TrainingData, trained_briefly) -> None:
        first, other = trained_briefly(name)[0].state_dict(), train(name, data, 6, epochs=2)[0].state_dict()
        assert first.keys() == other.keys()
        assert any(not torch.equal(first[key], other[key]) for key in first)

    def test_the_loss_of_a_batch_is_finite_and_its_parts_are_scalars(self, name: str, data: TrainingData) -> None:
        model = build(name, data)
        model.on_epoch_start(0, torch.Generator().manual_seed(0))
        one = torch.tensor([0])
        parts = model.loss(Batch(one, torch.tensor([2]), torch.tensor([1]) if model.uses_negatives else one[:0]))
        assert all(part.ndim == 0 and torch.isfinite(part) for part in parts.values())


@pytest.mark.parametrize("name", CLOSED_FORM)
class TestEveryModelInClosedForm:
    def test_every_choice_is_tried_and_the_first_of_the_best_is_kept(self, name: str, trained) -> None:
        model, result = trained(name)
        tried = [row[1 : 1 + len(model.settings)] for row in result.history.rows()]
        assert tried == list(model.choices)
        recalls = result.history["valid_recall"].to_list()
        assert result.best_epoch == recalls.index(max(recalls))
        assert model.chosen.tolist() == list(model.choices[result.best_epoch])

    def test_it_draws_nothing(self, name: str, data: TrainingData, trained) -> None:
        assert_same(trained(name)[1].ranker, train(name, data, 6)[1].ranker)

    def test_what_needs_steps_is_refused(self, name: str, data: TrainingData) -> None:
        with pytest.raises(InputError, match="closed form"):
            build(name, data, augmentation=True)
        with pytest.raises(InputError, match=r"training\.loss: expected bpr"):
            build(name, data, loss="sampled_softmax")

    def test_held_out_rows_change_no_solution(self, name: str, data: TrainingData) -> None:
        model, others = build(name, data), build(name, replace(data, valid_items=data.valid_items[::-1].copy()))
        assert_same(model.solve(model.choices[0]), others.solve(others.choices[0]))


@pytest.mark.parametrize("name", [name for name in MODELS if images(MODELS[name].inputs)])
def test_it_trains_without_images(name: str, checkerboard) -> None:
    _, result = train(name, checkerboard.data(*images(MODELS[name].inputs)), epochs=2)
    assert result.ranker.is_finite()


@pytest.mark.parametrize("name", PAIRWISE)
def test_the_sampled_softmax_solves_the_checkerboard_too(name: str, checkerboard, data: TrainingData) -> None:
    _, result = train(name, data, loss="sampled_softmax", n_shared_negatives=20)
    losses = result.history["loss_sampled_softmax"].to_list()
    assert losses[-1] < losses[0]
    test = evaluate(result.ranker, data.train_pairs, checkerboard.pairs("test"), ks=(18,))
    assert test.value("recall", 18) > 0.9


@pytest.mark.parametrize("name", ["lattice", "bm3", "freedom", "mgcn", "gume", "blast", "timemm", "bridge"])
def test_features_are_trained_where_asked_for(name: str, data: TrainingData) -> None:
    config = resolve_config(name, {**overrides(name, epochs=2), "trainable_features": True})
    model = build_model(name, config, data, 0)
    before = {key: value.clone() for key, value in model.state_dict().items() if key.endswith(".features")}
    assert len(before) == (3 if name == "blast" else 2)
    fit(model, data, seed=0)
    assert all(not torch.equal(value, model.state_dict()[key]) for key, value in before.items())
