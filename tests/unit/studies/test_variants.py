"""A variant is a model with other settings and inputs, from the package or from the user's file."""

from pathlib import Path

import polars as pl
import pytest

from recmodels.catalogue.entries import load_catalogue
from recmodels.errors import InputError
from recmodels.models.registry import MODELS, resolve_config
from recmodels.models.variants import POSITIVES, load_variants, trainable
from recmodels.settings import training_settings
from recmodels.studies.entries import load_studies
from recmodels.studies.resolve import resolve
from recmodels.transport.config import PositivesConfig
from recmodels.transport.false_negatives import false_negatives
from recmodels.transport.positives import added_positives

DEMO = load_catalogue()["demo"]


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "studies.toml"
    monkeypatch.setenv("RECMODELS_STUDIES", str(path))
    return path


@pytest.mark.parametrize("dataset", ["demo", "baby", "sports", "clothing"])
def test_every_packaged_variant_has_settings_that_its_model_knows(dataset: str) -> None:
    for name, spec in load_variants().items():
        found = resolve(name, load_catalogue()[dataset])
        assert found.model in MODELS
        assert found.config.training.augmentation == ("augmented_interactions" in found.inputs), name
        assert not found.config.training.restricted_negatives or {"item_text_knn", "item_image_knn"} <= spec.inputs


def test_it_differs_from_its_model_in_what_it_names_alone() -> None:
    plain, other = (training_settings(DEMO, name).values for name in ("freedom", "freedom-ot"))
    assert {name for name in plain if plain[name] != other[name]} == {
        "training.augmentation",
        "training.restricted_negatives",
    }
    assert trainable("freedom-ot").inputs == MODELS["freedom"].inputs | {"augmented_interactions"}


def test_its_own_settings_hold_over_those_of_the_data_set_and_the_catalogue_has_the_last_word(user_file: Path) -> None:
    user_file.write_text("[variants.narrow]\ntitle = 'Narrow'\nmodel = 'bpr'\nsettings.embedding_size = 8\n")
    entry = DEMO.model_copy(update={"models": {"bpr": {"embedding_size": 32, "training": {"epochs": 3}}}})
    config = resolve("narrow", entry).config
    assert (config.model_dump()["embedding_size"], config.training.epochs) == (8, 3)
    assert config.training.batch_size == DEMO.training["batch_size"]
    own = entry.model_copy(update={"models": {"narrow": {"embedding_size": 4}}})
    assert resolve("narrow", own).config.model_dump()["embedding_size"] == 4
    assert resolve("calibrated/narrow", own).calibrated


def test_a_variant_reads_the_tables_that_stand_in_and_none_that_it_does_without() -> None:
    assert resolve("blast-llm", DEMO).inputs == {
        "item_image_embeddings": "item_image_embeddings",
        "item_image_knn": "item_image_knn",
        "item_text_embeddings": "item_profile_embeddings",
        "item_text_knn": "item_profile_knn",
    }


def test_a_grid_has_a_variant_for_each_combination(user_file: Path) -> None:
    user_file.write_text(
        "[variants.sweep]\ntitle = 'BLAST'\nmodel = 'blast'\n"
        "grid = { 'positives.ratio' = [0.1, 0.5], 'training.patience' = [20, 100] }\n"
    )
    found = {name: spec for name, spec in load_variants().items() if name.startswith("sweep")}
    assert list(found) == ["sweep-0.1-20", "sweep-0.1-100", "sweep-0.5-20", "sweep-0.5-100"]
    last = resolve("sweep-0.5-100", DEMO)
    assert last.config.training.patience == 100
    assert last.positives is not None
    assert last.positives.ratio == 0.5
    assert last.inputs["augmented_interactions"] == f"{POSITIVES}sweep-0.5-100"
    assert found["sweep-0.1-20"].point == {"positives.ratio": 0.1, "training.patience": 20}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[variants.Bad]\ntitle = ''\nmodel = 'bpr'", "lower-case"),
        ("[variants.bpr]\ntitle = ''\nmodel = 'bpr'", "no model's name"),
        ("[variants.x]\ntitle = ''\nmodel = 'freedon'", "Did you mean freedom"),
        ("[variants.x]\ntitle = ''\nmodel = 'bpr'\nsetings = {}", "Did you mean settings"),
        ("[variants.x]\ntitle = ''\nmodel = 'bpr'\nwithout = ['user_knn']", "tables among"),
        ("[variants.x]\ntitle = ''\nmodel = 'bpr'\ninputs = { item_text_knn = 'rejects' }", "item_profile_knn"),
        ("[variants.x]\ntitle = ''\nmodel = 'bpr'\npositives = { ratio = 0.2 }", "read by nothing"),
        ("[variants.x]\ntitle = ''\nmodel = 'blast'\npositives = { rato = 0.2 }", "Did you mean ratio"),
        ("[variants.x]\ntitle = ''\nmodel = 'bpr'\nsettings.training = 3", "a mapping of settings"),
        ("[variant.x]\ntitle = ''\nmodel = 'bpr'", "Did you mean variants"),
        ("[variants", "readable TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(user_file: Path, text: str, told: str) -> None:
    user_file.write_text(text)
    with pytest.raises(InputError, match="studies") as error:
        load_variants()
    assert told in str(error.value)


def test_tuned_settings_are_announced_and_not_made_up(user_file: Path) -> None:
    user_file.write_text("[variants.best]\ntitle = 'Best'\nmodel = 'bpr'\nsettings = 'tuned'\n")
    spec = load_variants()["best"]
    assert spec.tuned
    assert not spec.settings
    assert resolve("best", DEMO, {"embedding_size": 16}).config == resolve("bpr", DEMO, {"embedding_size": 16}).config
    assert resolve_config("bpr").model_dump()["embedding_size"] != 16


TRAIN = pl.DataFrame({"user_id": [0, 0, 0, 1, 1, 2], "item_id": [0, 1, 2, 1, 3, 4]})
KNN = pl.DataFrame(
    [(item, (item + step) % 12, step, 1 - step / 10) for item in range(12) for step in range(5)],
    schema=["src", "dst", "rank", "similarity"],
    orient="row",
)


def _drawn(**settings: object) -> pl.DataFrame:
    config = PositivesConfig.model_validate({"strategy": "random", "neighbours": 5, **settings})
    return added_positives(TRAIN, {"text": KNN}, n_users=3, n_items=12, config=config)


def test_random_positives_are_false_negatives_until_the_data_doubles() -> None:
    likely = false_negatives(TRAIN["user_id"], TRAIN["item_id"], 3, 12, {"text": KNN}, k=5).toarray() > 0
    added = _drawn(ratio=1.0)
    assert added.height == TRAIN.height
    assert added.select("user_id", "item_id").is_unique().all()
    assert all(likely[user, item] for user, item, _ in added.iter_rows())
    assert _drawn(ratio=1.0, seed=1).rows() != added.rows()
    assert _drawn(ratio=1.0).equals(added)
    assert _drawn(ratio=100.0).height == likely.sum()


def test_random_positives_fill_each_user_up_and_no_further() -> None:
    added = dict(_drawn(items_per_user=5).group_by("user_id").len().iter_rows())
    assert added == {0: 2, 1: 3, 2: 4}


def test_random_draws_are_uniform() -> None:
    counts = pl.concat([_drawn(ratio=0.5, seed=seed) for seed in range(400)]).group_by("user_id", "item_id").len()
    likely = false_negatives(TRAIN["user_id"], TRAIN["item_id"], 3, 12, {"text": KNN}, k=5).nnz
    expected = 400 * 3 / likely
    assert counts.height == likely
    statistic = ((counts["len"] - expected) ** 2 / expected).sum()
    assert statistic < likely + 4 * (2 * likely) ** 0.5  # chi-square: mean n, variance 2 n


def test_studies_name_only_variants_that_exist() -> None:
    for study in load_studies().values():
        for row in study.rows:
            if row not in ("popularity", "random"):
                resolve(row, DEMO)
