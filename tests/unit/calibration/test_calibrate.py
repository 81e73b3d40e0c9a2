"""The choice of a calibration: on validation rows alone, recorded whole, and the same wherever it is used."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recmodels.calibration.calibrate import calibrate
from recmodels.calibration.config import CalibrationConfig
from recmodels.calibration.evidence import evidence_weights
from recmodels.calibration.run import calibrate_checkpoint
from recmodels.checkpoints.store import load_checkpoint
from recmodels.errors import InputError, MissingObject
from recmodels.evaluation.evaluator import evaluate, recall_at
from recmodels.graphs.matrices import interaction_matrix
from recmodels.models.inputs import TrainingData, training_data
from recmodels.models.registry import resolve_config
from recmodels.models.zoo import bpr
from recmodels.ranking.calibrated import CalibratedRanker, Evidence
from recmodels.ranking.ranker import EmbeddingScorer
from recmodels.serving.recommender import Recommender
from recmodels.training.run import save_checkpoint, train_checkpoint
from recmodels.training.trainer import fit
from recmodels.validation import validated

N_USERS, N_ITEMS = 60, 80
SMALL = CalibrationConfig(strengths=(0.5, 2.0), shortlists=(30, 60))
EVERYTHING = ("co_users", "ease", "text_graph", "image_graph")


@pytest.fixture(scope="module")
def data(checkerboard) -> TrainingData:
    return checkerboard.data()


def weak_base() -> EmbeddingScorer:
    """Random embeddings with a hint of the parity that users like."""
    generator = torch.Generator().manual_seed(0)
    tables = [torch.randn(n, 6, generator=generator) for n in (N_USERS, N_ITEMS)]
    for table in tables:
        table[:, 0] = torch.where(torch.arange(len(table)) % 2 == 1, 1.0, -1.0)
    return EmbeddingScorer(*tables)


def matrices(data: TrainingData):
    pairs = data.train_pairs, (data.valid_users, data.valid_items)
    return [interaction_matrix(*each, N_USERS, N_ITEMS) for each in pairs]


@pytest.mark.parametrize("evidence", [("co_users",), ("ease", "co_users")])
@pytest.mark.parametrize("normalisation", ["shortlist", "row"])
def test_every_recorded_recall_is_the_evaluators(evidence, normalisation, data: TrainingData) -> None:
    config = SMALL.model_copy(update={"evidence": evidence, "normalisation": normalisation})
    found = calibrate(weak_base(), data, config)
    weights, (train, valid) = evidence_weights(data, config), matrices(data)
    for row in found.search.iter_rows(named=True):
        tried = [Evidence(name, weights[name], row[f"strength_{name}"]) for name in evidence]
        ranker = CalibratedRanker(weak_base(), train, tried, row["shortlist"], normalisation)
        assert row["valid_recall"] == pytest.approx(recall_at(ranker, train, valid, 20))
    chosen = found.search.filter(pl.col("chosen")).row(0, named=True)
    assert chosen["valid_recall"] == found.search["valid_recall"].max()
    assert chosen["valid_recall"] > recall_at(weak_base(), train, valid, 20)
    assert recall_at(found.ranker, train, valid, 20) == pytest.approx(chosen["valid_recall"])
    assert found.ranker.shortlist == chosen["shortlist"]


def test_one_evidence_is_tried_with_every_strength_and_length_and_without_any(data: TrainingData) -> None:
    tried = calibrate(weak_base(), data, SMALL).search.select("shortlist", "strength_co_users").rows()
    assert tried == [(length, beta) for length in (30, 60) for beta in (0.0, 0.5, 2.0)]


def test_several_evidences_are_no_worse_than_each_and_have_strengths_of_their_own(data: TrainingData) -> None:
    together = calibrate(weak_base(), data, SMALL.model_copy(update={"evidence": EVERYTHING}))
    first = calibrate(weak_base(), data, SMALL)
    best = [each.search["valid_recall"].max() for each in (together, first)]
    assert best[0] >= best[1]
    assert [one.name for one in together.ranker.evidence] == list(EVERYTHING)
    tried = together.search.select("shortlist", *(f"strength_{name}" for name in EVERYTHING))
    assert not tried.is_duplicated().any()


def test_of_equally_good_calibrations_the_weakest_wins(data: TrainingData) -> None:
    # A base that puts all validation items in front cannot be improved.
    perfect = np.zeros((N_USERS, N_ITEMS), np.float32)
    perfect[data.valid_users, data.valid_items] = 1
    base = EmbeddingScorer(torch.from_numpy(perfect), torch.eye(N_ITEMS))
    found = calibrate(base, data, CalibrationConfig(strengths=(1e-6,), shortlists=(60, 30)))
    assert found.search["valid_recall"].to_list() == [1.0] * 4
    assert found.search.filter(pl.col("chosen")).rows() == [(30, 0.0, 1.0, True)]


def test_the_choice_does_not_depend_on_test_rows(checkerboard) -> None:
    shuffled = checkerboard.interactions.with_columns(
        item_id=pl.when(pl.col("split") == "test").then((pl.col("item_id") * 7 + 3) % N_ITEMS).otherwise("item_id")
    )
    assert not shuffled.equals(checkerboard.interactions)
    first, second = (
        calibrate(weak_base(), training_data(rows, n_users=N_USERS, n_items=N_ITEMS), SMALL)
        for rows in (checkerboard.interactions, shuffled)
    )
    assert first.search.equals(second.search)
    assert first.ranker.settings() == second.ranker.settings()


def test_validation_rows_change_no_evidence(data: TrainingData) -> None:
    config = CalibrationConfig(evidence=EVERYTHING)
    other = replace(data, valid_users=data.valid_users[::-1].copy(), valid_items=data.train_items[:240].copy())
    for name, weights in evidence_weights(data, config).items():
        again = evidence_weights(other, config)[name]
        differs = (weights != again).any() if isinstance(weights, torch.Tensor) else (weights != again).nnz
        assert not differs, name


def test_an_item_graph_speaks_from_a_users_item_to_its_neighbours(data: TrainingData) -> None:
    weights = evidence_weights(data, CalibrationConfig(evidence=("text_graph",)))["text_graph"].toarray()
    expected = np.zeros((N_ITEMS, N_ITEMS), np.float32)
    for source, target, _, similarity in data.item_knn["text"].iter_rows():
        expected[source, target] = similarity if source != target else 0
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ({"evidence": ("image_graph",)}, {"item_image_knn": None}, "evidence image_graph: expected item_image_knn"),
        ({}, {"valid_users": np.zeros(0, np.int64), "valid_items": np.zeros(0, np.int64)}, "validation pairs"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(config: dict, change: dict, message: str, data: TrainingData) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(weak_base(), replace(data, **change), CalibrationConfig(**config))


@pytest.mark.parametrize(
    "settings", [{"shortlists": (0, 20)}, {"strengths": (-0.1,)}, {"evidence": ()}, {"evidence": ("clicks",)}, {"k": 5}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        validated(CalibrationConfig, settings, "calibration")


def test_a_model_that_reranks_is_watched_stored_and_served_by_its_own_ranking(
    checkerboard, data, tmp_path: Path
) -> None:
    train, valid = matrices(data)
    weights = evidence_weights(data, SMALL)["co_users"]

    class Reranking(bpr.Model):
        def ranker(self) -> CalibratedRanker:
            return CalibratedRanker(super().ranker(), train, [Evidence("co_users", weights, 1.0)], 30)

    config = resolve_config(
        "bpr", {"embedding_size": 8, "training": {"epochs": 4, "learning_rate": 0.05, "batch_size": 2048}}
    )
    model = Reranking(config, data, torch.Generator().manual_seed(0))
    result = fit(model, data, seed=0)
    assert result.best_valid_recall == recall_at(result.ranker, train, valid, 20)
    assert result.best_valid_recall != recall_at(result.ranker.base, train, valid, 20)
    save_checkpoint(
        tmp_path / "reranking",
        name="bpr",
        model=model,
        result=result,
        data=data,
        seed=0,
        users=checkerboard.users,
        items=checkerboard.items,
        provenance={},
    )
    recommender = Recommender.load(tmp_path / "reranking")
    assert recommender.checkpoint.calibration is None
    seen = (train + valid).tocsr()
    expected, _ = result.ranker.top_items(torch.arange(N_USERS), 10, excluded=seen)
    assert recommender.recommend(np.arange(N_USERS), 10)["item_id"].to_list() == expected.ravel().tolist()


@pytest.fixture(scope="module")
def checkpoints(checkerboard, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    train_checkpoint(
        folder / "base",
        "bpr",
        resolve_config("bpr", {"embedding_size": 8, "training": {"epochs": 3, "learning_rate": 0.01}}),
        checkerboard.data(),
        seed=0,
        users=checkerboard.users,
        items=checkerboard.items,
        provenance={"split": "abc"},
    )
    calibrate_checkpoint(folder / "calibrated", folder / "base", SMALL, provenance={"note": "calibrated"})
    return folder / "base", folder / "calibrated"


def test_a_calibrated_checkpoint_holds_ranking_search_and_all_of_its_source(checkpoints, data) -> None:
    source, stored = (load_checkpoint(path) for path in checkpoints)
    expected = calibrate(source.ranker, data, SMALL)
    assert stored.calibration is not None
    assert stored.calibration.equals(expected.search)
    assert source.calibration is None
    assert stored.ranker.settings() == expected.ranker.settings()
    tensors = expected.ranker.tensors()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in stored.ranker.tensors().items())
    assert stored.history.equals(source.history)
    assert (stored.model, stored.config, stored.seed) == (source.model, source.config, source.seed)
    assert stored.provenance["split"] == "abc"
    assert stored.provenance["note"] == "calibrated"
    assert stored.provenance["calibration"]["config"] == SMALL.model_dump(mode="json")
    assert stored.provenance["calibration"]["chosen"]["chosen"]


def test_the_recommender_shows_what_the_evaluator_ranks(checkpoints, checkerboard, data) -> None:
    recommender = Recommender.load(checkpoints[1])
    shown = recommender.recommend(np.arange(N_USERS), 10)["item_id"].to_numpy().reshape(N_USERS, 10)
    result = evaluate(
        recommender.checkpoint.ranker,
        data.train_pairs,
        checkerboard.pairs("test"),
        ks=(10,),
        masked=checkerboard.pairs("valid"),
    )
    wanted = [set() for _ in range(N_USERS)]
    for user, item in zip(*checkerboard.pairs("test"), strict=True):
        wanted[user].add(item)
    hits = [[item in wanted[user] for item in items] for user, items in enumerate(shown.tolist())]
    discounts = 1 / np.log2(np.arange(2, 12))
    expected = [np.dot(row, discounts) / discounts[: len(wanted[user])].sum() for user, row in enumerate(hits)]
    np.testing.assert_allclose(result.per_user["ndcg@10"], expected)
    plain = Recommender.load(checkpoints[0]).recommend(np.arange(N_USERS), 10)["item_id"].to_numpy()
    assert not np.array_equal(plain, shown.ravel())


def test_a_calibrated_checkpoint_is_calibrated_anew_from_its_base(checkpoints, tmp_path: Path) -> None:
    calibrate_checkpoint(tmp_path / "again", checkpoints[1], SMALL, provenance={})
    first, again = (load_checkpoint(path).ranker for path in (checkpoints[1], tmp_path / "again"))
    assert isinstance(again, CalibratedRanker)
    assert isinstance(again.base, EmbeddingScorer)
    assert first.settings() == again.settings()


def test_a_damaged_or_missing_search_is_found(checkpoints, tmp_path: Path) -> None:
    calibrate_checkpoint(tmp_path / "copy", checkpoints[0], SMALL, provenance={})
    path = tmp_path / "copy" / "calibration.parquet"
    assert "calibration.parquet" in json.loads((tmp_path / "copy" / "manifest.json").read_text())["sha256"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(MissingObject, match=r"calibration\.parquet is damaged"):
        load_checkpoint(tmp_path / "copy")
    path.unlink()
    with pytest.raises(MissingObject, match=r"calibration\.parquet"):
        load_checkpoint(tmp_path / "copy")
