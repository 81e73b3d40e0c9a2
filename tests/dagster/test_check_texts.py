"""A check that fails says in one line what it counted, the limit, an example and what to do."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import polars as pl
import pytest
from graph_runs import failure_texts

import assets
from assets.support.io_managers import STORED_AT, DocumentIOManager, ParquetIOManager
from assets.support.lineage import inline_table
from assets.support.partitions import DATASETS
from assets.support.resources import DataRoot
from assets.training import checkpoint_key
from pipelines.definitions import build_definitions
from recmodels.catalogue.entries import load_catalogue
from recmodels.data.raw_files import prepare_raw_files
from recmodels.raw.demo import write_demo_dump
from recmodels.schemas.tables import ITEMS, LEADERBOARD, PIPELINE_STATUS

CHECKS = {
    (check.check_key.asset_key.to_user_string(), check.check_key.name): check
    for check in dg.load_asset_checks_from_package_module(assets)
}
SEEDED = dg.MultiPartitionKey({"dataset": "demo", "seed": "0"})
Evaluate = Callable[..., dg.AssetCheckEvaluation]


@pytest.fixture
def run_alone(data_root: DataRoot, instance: dg.DagsterInstance) -> Callable[..., dg.ExecuteInProcessResult]:
    """A function that runs one check on its own."""

    def run(asset: str, name: str, partition: str | None = "demo") -> dg.ExecuteInProcessResult:
        definitions = dg.Definitions(asset_checks=[CHECKS[asset, name]], resources={"data_root": data_root})
        job = definitions.resolve_implicit_global_asset_job_def()
        # Dagster looks for the partitions of a job among its assets, and this one has none: the tags name it.
        tags = {} if partition is None else {"dagster/partition": partition}
        if isinstance(partition, dg.MultiPartitionKey):
            tags |= {f"dagster/partition/{name}": key for name, key in partition.keys_by_dimension.items()}
        return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)

    return run


@pytest.fixture
def evaluate(run_alone: Callable[..., dg.ExecuteInProcessResult]) -> Evaluate:
    """A function that runs one check on its own and returns what it found."""

    def run(*check: str | None) -> dg.AssetCheckEvaluation:
        (evaluation,) = run_alone(*check).get_asset_check_evaluations()
        return evaluation

    return run


def _stored(data_root: DataRoot, instance: dg.DagsterInstance, name: str, value: Any, **declared: Any) -> None:
    """Store and record a table or document of `demo` as its asset would."""
    partitions = declared.pop("partitions_def", DATASETS)

    @dg.asset(name=name, partitions_def=partitions, **declared)
    def made() -> Any:
        return value

    managers = {"parquet_io": ParquetIOManager, "document_io": DocumentIOManager}
    resources = {name: manager(data_root=data_root) for name, manager in managers.items()}
    partition = None if partitions is None else "demo"
    assert dg.materialize([made], partition_key=partition, resources=resources, instance=instance).success


RECORDED: list[tuple[str, str, list[Mapping[str, Any]], str]] = [
    (
        "interactions", "k_core_holds",
        [{"k_core": 5, "fewest_interactions": {"user": 5, "item": 3}}],
        "Some item has 3 interactions, expected at least 5",
    ),
    (
        "interactions", "published_sizes",
        [{"differences_from_published": {"test": [1_234, 1_300], "users": [9, 10]}}],
        "2 of the published numbers differ, expected none: 1,234 test instead of 1,300.",
    ),
    (
        "interactions", "little_drift",
        [{"dagster/row_count": 1_000}, {"dagster/row_count": 2_000}],
        "2,000 rows are 100% off the 1,000 of the last time, expected at most 10%.",
    ),
    (
        "interactions", "keeps_its_core",
        [{"cut_core": {
            "file": "All_Beauty_5.json.gz", "core_by_name": 5, "k_core": 5, "pairs": 4_092, "pairs_lost": 3_406,
            "users_lost": 854, "items_lost": 61,
        }}],
        "3,406 of 4,092 pairs, 854 users and 61 items fell below k_core = 5, expected none: All_Beauty_5.json.gz is a "
        "5-core already by its name, which counts repeated rows. Set k_core = 1",
    ),
    (
        "interactions", "lists_leave_most_items_out",
        [{"sizes": {"items": 24}}],
        "Lists of 20 are measured and there are 24 items, expected at least 80: recall@20 is about 0.83 for a list in "
        "random order. Compare models by ndcg@10",
    ),
    (
        "item_text_knn", "sampled_recall",
        [{"sampled_recall": 0.9}],
        "The search found 90.00% of the true neighbours of a sample of rows, expected at least 99%",
    ),
    (
        "augmented_interactions", "converged_plan",
        [{"status": "not converged", "marginal_error": 0.25}],
        "The marginals of the plan are off by 0.25, expected no more than the tolerance",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("asset", "name", "records", "text"), RECORDED, ids=[row[1] for row in RECORDED])
def test_what_was_recorded_is_told(
    instance: dg.DagsterInstance, evaluate: Evaluate, asset: str, name: str, records: list[Mapping[str, Any]], text: str
) -> None:
    for metadata in records:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition="demo", metadata=metadata))
    _assert_told(evaluate(asset, name), text)


def _assert_told(evaluation: dg.AssetCheckEvaluation, *texts: str) -> None:
    description = evaluation.description or ""
    assert not evaluation.passed
    assert "\n" not in description
    assert "expected" in description
    assert description.endswith(".")
    for text in texts:
        assert text in description


@pytest.mark.parametrize(
    ("dead", "cure"), [(0, "Raise answer_tokens, set sampling or name a larger model."), (85, "Mend the server")]
)
def test_profiles_that_fell_back_are_told(
    dead: int, cure: str, instance: dg.DagsterInstance, evaluate: Evaluate
) -> None:
    reasons = pl.DataFrame({"id": [3, 7, 9], "reason": ["it repeats itself", "it was cut off", "it repeats itself"]})
    metadata: dict[str, Any] = {
        "rows": 148, "fallback": 85, "dead_letters": dead, "empty": 1, "settings": {"max_fallback_share": 0.05},
        "unanswered": inline_table(reasons),
    }  # fmt: skip

    def report(**overrides: float) -> dg.AssetCheckEvaluation:
        told = metadata | ({"overrides": overrides} if overrides else {})
        instance.report_runless_asset_event(dg.AssetMaterialization("item_profiles", partition="demo", metadata=told))
        return evaluate("item_profiles", "few_fallbacks")

    _assert_told(
        report(), cure,
        "85 of 148 profiles (57.4%) fell back", "expected at most 5.0% (max_fallback_share)",
        "item_id 3: it repeats itself; item_id 7: it was cut off.", "materialise item_profiles again",
    )  # fmt: skip
    assert report(max_fallback_share=0.58).passed


def test_models_that_cannot_be_compared_are_told(
    data_root: DataRoot, instance: dg.DagsterInstance, evaluate: Evaluate
) -> None:
    figures = [("bpr", "p", "recall", 10), ("bpr", "p", "recall", 20), ("vbpr", "q", "recall", 20)]
    board = pl.DataFrame([(*figure, 1, 0.1, None) for figure in figures], schema=LEADERBOARD, orient="row")
    _stored(data_root, instance, "leaderboard", board, io_manager_key="parquet_io")
    _assert_told(
        evaluate("leaderboard", "comparable_models"),
        "1 of 2 x 2 figures are missing, expected none; the first is recall@10 of vbpr.",
    )


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<html><img src="http://x/y.png"></html>', "expected none; the first is img src=http://x/y.png."),
        ("<html>cut off", "expected 1; it ends with '<html>cut off'."),
    ],
)
def test_a_report_that_is_not_whole_is_told(
    data_root: DataRoot, instance: dg.DagsterInstance, evaluate: Evaluate, html: str, text: str
) -> None:
    _stored(data_root, instance, "report", html, io_manager_key="document_io", metadata={"suffix": ".html"})
    _assert_told(evaluate("report", "self_contained"), text)


def test_what_needs_a_person_is_told(data_root: DataRoot, instance: dg.DagsterInstance, evaluate: Evaluate) -> None:
    rows = [
        ("demo", None, "items", "interactions", "up_to_date", "", None),
        ("demo", 1, "checkpoint/bpr", "training", "failed", "run 1 failed\nout of memory", None),
        ("demo", 2, "checkpoint/bpr", "training", "failed", "its check intact failed", None),
    ]
    table = pl.DataFrame(rows, schema=PIPELINE_STATUS, orient="row")
    _stored(data_root, instance, "pipeline_status", table, io_manager_key="parquet_io", partitions_def=None)
    _assert_told(
        evaluate("pipeline_status", "nothing_failed", None),
        "2 partitions failed or have a failed check, expected none; the first is checkpoint/bpr of demo, seed 1 "
        "(run 1 failed out of memory).",
    )


def test_one_title_for_most_items_is_told(
    data_root: DataRoot, instance: dg.DagsterInstance, evaluate: Evaluate
) -> None:
    titles = ["<span class=", "<span class=", "<span class=", "", "a mug"]
    rows = [(i, f"B00000000{i}", title, "", "", [], None, "") for i, title in enumerate(titles)]
    table = pl.DataFrame(rows, schema=ITEMS, orient="row")
    _stored(data_root, instance, "items", table, io_manager_key="parquet_io")
    _assert_told(
        evaluate("items", "titles_tell_items_apart"),
        "3 of 5 items (60%) have the title '<span class=', expected at most 50% with one title.",
    )
    untitled = table.with_columns(title=pl.lit(""))
    _stored(data_root, instance, "items", untitled, io_manager_key="parquet_io")
    assert evaluate("items", "titles_tell_items_apart").passed


def test_described_items_without_a_title_are_told(
    data_root: DataRoot, instance: dg.DagsterInstance, evaluate: Evaluate
) -> None:
    told = [("A mug", "", []), *[("", "Holds tea.", [])] * 3, ("", "", ["Mugs"]), ("", "", [])]
    rows = [(i, f"B00000000{i}", title, text, "", path, None, "") for i, (title, text, path) in enumerate(told)]
    table = pl.DataFrame(rows, schema=ITEMS, orient="row")
    _stored(data_root, instance, "items", table, io_manager_key="parquet_io")
    _assert_told(
        evaluate("items", "titles_tell_items_apart"),
        "4 of 5 items that the metadata describes (80%) have no title, or one that is markup alone, expected at most",
    )
    _stored(data_root, instance, "items", table.head(4), io_manager_key="parquet_io")
    assert evaluate("items", "titles_tell_items_apart").passed


@pytest.mark.parametrize(("n_items", "passed"), [(79, False), (80, True), (5_000, True)])
def test_lists_that_hold_at_most_a_quarter_of_the_items_are_fine(
    n_items: int, passed: bool, instance: dg.DagsterInstance, evaluate: Evaluate
) -> None:
    metadata = {"sizes": {"items": n_items}}
    instance.report_runless_asset_event(dg.AssetMaterialization("interactions", partition="demo", metadata=metadata))
    assert evaluate("interactions", "lists_leave_most_items_out").passed is passed


def test_a_training_that_stopped_after_few_steps_is_told(instance: dg.DagsterInstance, evaluate: Evaluate) -> None:
    def found(**metadata: Any) -> dg.AssetCheckEvaluation:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(checkpoint_key("bpr"), partition=SEEDED, metadata=metadata)
        )
        return evaluate("checkpoint/bpr", "enough_steps", SEEDED)

    stopped = {"epochs": 23, "batch_size": 2_048, "stopped_early": True}
    _assert_told(
        found(steps=23, **stopped),
        "after 23 optimiser steps (23 epochs with batches of 2048), expected at least 200",
        "Lower training.batch_size or raise training.patience",
    )
    assert found(steps=200, **stopped).passed
    assert found(steps=23, **stopped | {"stopped_early": False}).passed
    assert found().passed
    assert ("checkpoint/ease", "enough_steps") not in CHECKS
    assert not [asset for asset, name in CHECKS if name == "enough_steps" and not asset.startswith("checkpoint/")]


def test_a_model_that_is_not_above_popularity_is_told(instance: dg.DagsterInstance, evaluate: Evaluate) -> None:
    ndcg: dict[str, float] = {}

    def found(model: str, **recalls: float) -> dg.AssetCheckEvaluation:
        for name, recall in {model: recalls.pop("own"), **recalls}.items():
            metadata = {"recall@20": recall, "ndcg@20": recall / 2 if recall < 1 else ndcg[name], "split_digest": "s"}
            key = dg.AssetKey(["metrics", *name.split("/")])
            instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=SEEDED, metadata=metadata))
        return evaluate(f"metrics/{model}", "beats_popularity", SEEDED)

    assert found("bpr", own=0.1).passed
    for model in ("bpr", "ease", "calibrated/bpr"):
        _assert_told(
            found(model, own=0.1616, popularity=0.165),
            "has recall@20 0.1616 on the test rows, expected more than the 0.1650 of popularity",
        )
        assert not found(model, own=0.165, popularity=0.165).passed
        assert found(model, own=0.166, popularity=0.165).passed
    ndcg.update(bpr=0.5, popularity=0.5)
    _assert_told(
        found("bpr", own=1.0, popularity=1.0), "has ndcg@20 0.5000 on the test rows, expected more than the 0.5"
    )
    ndcg["bpr"] = 0.6
    assert found("bpr", own=1.0, popularity=1.0).passed
    assert ("metrics/random", "beats_popularity") not in CHECKS


def test_a_raw_file_that_changed_is_told(data_root: DataRoot, instance: dg.DagsterInstance, evaluate: Evaluate) -> None:
    folder = data_root.raw("demo")
    write_demo_dump(folder)
    manifest = prepare_raw_files(load_catalogue()["demo"], folder)
    document = manifest.model_dump_json()
    _stored(data_root, instance, "raw_dumps", document, io_manager_key="document_io", metadata={"suffix": ".json"})
    assert evaluate("raw_dumps", "raw_files_unchanged").passed
    path = next(iter(manifest.files.values())).path
    path.write_bytes(path.read_bytes()[:-1])
    _assert_told(
        evaluate("raw_dumps", "raw_files_unchanged"),
        f"1 of {len(manifest.files)} raw files are not those that were hashed, expected none; the first is {path}.",
    )


def test_a_damaged_checkpoint_is_told(instance: dg.DagsterInstance, evaluate: Evaluate) -> None:
    metadata = {STORED_AT: "checkpoints/checkpoint/bpr/demo/0/gone"}
    key = checkpoint_key("bpr")
    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=SEEDED, metadata=metadata))
    _assert_told(
        evaluate("checkpoint/bpr", "intact", SEEDED),
        "1 checkpoint is not what was recorded, expected none", "Restore it, or materialise checkpoint/bpr",
    )  # fmt: skip


def test_every_check_that_is_written_by_hand_is_shown_here_or_in_the_pipeline() -> None:
    shown = {name for _, name, _, _ in RECORDED} | {
        "few_fallbacks", "comparable_models", "self_contained", "nothing_failed", "raw_files_unchanged", "intact",
        "few_rejects", "titles_tell_items_apart", "enough_steps", "beats_popularity", "complete",
    }  # fmt: skip
    graph = build_definitions().resolve_asset_graph()
    assert {key.name for key in graph.asset_check_keys} == shown | {"schema"}


def test_a_check_of_what_was_never_made_says_so(run_alone: Callable[..., dg.ExecuteInProcessResult]) -> None:
    told = failure_texts(run_alone("interactions", "k_core_holds"))
    assert told == ["interactions of demo was never materialised: materialise it first."]
