"""The graph from raw files to recommendations: data versions, leaks, bad input."""

import gzip
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from graph_runs import Run, data_versions, failure_texts, stored_table
from rich.console import Console

from assets.support.io_managers import ParquetIOManager, recorded_path
from assets.support.partitions import DATASETS
from assets.support.resources import DataRoot
from pipelines.definitions import build_definitions
from pipelines.jobs import assets_of_models
from pipelines.progress import ProgressDisplay

TRAINED = ["bpr", "lightgcn", "blast"]
SEEDED = {"dataset": "demo", "seed": "0"}
AFTER_SPLIT = [
    dg.AssetKey(name)
    for name in (
        "item_profiles", "user_profiles", "item_text_embeddings", "user_text_embeddings", "item_text_knn", "user_knn",
        "augmented_interactions",
    )
]  # fmt: skip


def _materialize_interactions(data_root: DataRoot, instance: dg.DagsterInstance, table: pl.DataFrame) -> None:
    """Store and record a table of interactions, as if the raw files had been such."""

    @dg.asset(partitions_def=DATASETS, io_manager_key="parquet_io")
    def interactions() -> pl.DataFrame:
        return table

    resources = {"parquet_io": ParquetIOManager(data_root=data_root)}
    assert dg.materialize([interactions], partition_key="demo", resources=resources, instance=instance).success


@pytest.mark.slow
def test_materialising_twice_gives_equal_data_versions_for_every_asset(prepared_run: Run, data_root: DataRoot) -> None:
    versions: list[dict[str, str]] = []
    weights: list[bytes] = []
    for _ in range(2):
        results = [
            prepared_run("prepare"),
            prepared_run("train", SEEDED, assets=assets_of_models(TRAINED)),
            prepared_run("evaluate"),
        ]
        assert all(result.success for result in results), [failure_texts(result) for result in results]
        versions.append({key: value for result in results for key, value in data_versions(result).items()})
        newest = max(
            data_root.root.glob("checkpoints/checkpoint/blast/demo/0/*"), key=lambda path: path.stat().st_mtime_ns
        )
        weights.append((newest / "model.safetensors").read_bytes())
    assert versions[0] == versions[1]
    assert weights[0] == weights[1]
    assert {"raw_dumps", "augmented_interactions", "checkpoint/blast", "leaderboard", "report"} <= versions[0].keys()


@pytest.mark.slow
def test_every_materialisation_tells_rows_columns_and_what_it_read(prepared_run: Run) -> None:
    results = [
        prepared_run("prepare"),
        prepared_run("train", SEEDED, assets=assets_of_models(["lightgcn"])),
        prepared_run("evaluate"),
    ]
    for result in results:
        assert result.success
        for event in result.get_asset_materialization_events():
            metadata = event.materialization.metadata
            name = event.asset_key.to_user_string()
            assert bool(metadata["read"].value) == (name != "raw_dumps")
            assert "split_digest" in metadata or name in {
                "raw_dumps",
                "items",
                "item_ids",
                "users",
                "reviews",
                "rejects",
            }
            if name != "raw_dumps" and not name.startswith("checkpoint") and name != "report":
                assert metadata["dagster/row_count"].value >= 0
                assert metadata["dagster/column_schema"].value.columns


@pytest.mark.slow
def test_held_out_rows_reach_nothing_before_evaluation(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    before = data_versions(prepared_run("prepare"))
    trained = data_versions(prepared_run("train", SEEDED, assets=assets_of_models(["bpr", "blast"])))
    table = stored_table(instance, data_root, "interactions", "demo")
    n_items = table["item_id"].max() + 1
    test = table.filter(pl.col("split") == "test").with_columns(
        item_id=((pl.col("item_id") * 7 + 3) % n_items).cast(pl.Int32)
    )
    kept = table.filter(pl.col("split") != "test")
    edited = pl.concat([kept, test.join(kept, on=["user_id", "item_id"], how="anti")]).sort("user_id", "item_id")
    _materialize_interactions(data_root, instance, edited)

    after = data_versions(prepared_run("prepare", assets=AFTER_SPLIT))
    assert after == {name: before[name] for name in after}
    assert len(after) == len(AFTER_SPLIT)
    retrained = data_versions(prepared_run("train", SEEDED, assets=assets_of_models(["bpr", "blast"])))
    assert retrained["checkpoint/blast"] == trained["checkpoint/blast"]
    assert retrained["checkpoint/bpr"] == trained["checkpoint/bpr"]
    assert retrained["metrics/blast"] != trained["metrics/blast"]


@pytest.mark.slow
def test_a_leaderboard_leaves_out_what_was_measured_on_another_split(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    prepared_run("train", SEEDED, assets=assets_of_models(["bpr"]))
    table = stored_table(instance, data_root, "interactions", "demo")
    swapped = table.with_columns(
        split=pl.col("split").cast(pl.String).replace({"valid": "test", "test": "valid"}).cast(table.schema["split"])
    )
    _materialize_interactions(data_root, instance, swapped)
    prepared_run("train", {"dataset": "demo", "seed": "1"}, assets=assets_of_models(["bpr"]))
    prepared_run("evaluate", assets=[dg.AssetKey("leaderboard")])
    board = stored_table(instance, data_root, "leaderboard", "demo")
    assert board["n_seeds"].unique().to_list() == [1]


REVIEWS = "".join(
    f'{{"reviewerID": "U{user}", "asin": "B00000000{item}", "overall": 5.0, "unixReviewTime": 1500000000}}\n'
    for user in range(6)
    for item in range(6)
).encode()
READ = [dg.AssetKey(name) for name in ("raw_dumps", "items", "item_ids", "users", "reviews", "rejects", "interactions")]


@pytest.fixture
def raw_folder(tmp_path: Path) -> Path:
    """A folder with a small whole dump of the 2018 format."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "Gift_Cards_5.json.gz").write_bytes(gzip.compress(REVIEWS))
    (folder / "meta_Gift_Cards.json.gz").write_bytes(gzip.compress(b'{"asin": "B000000001", "title": "One"}\n'))
    return folder


def _config(raw_folder: Path) -> dict[str, object]:
    return {"raw_dumps": {"config": {"raw_dir": str(raw_folder), "download": False}}}


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        gzip.compress(REVIEWS)[:-20],
        gzip.compress(b"userID,itemID\n1,2\n"),
        gzip.compress(b"[" + REVIEWS.strip().replace(b"\n", b",\n") + b"]\n"),
    ],
    ids=["missing", "empty", "truncated", "another format", "an array"],
)
def test_bad_raw_files_fail_once_with_a_clear_line_and_leave_the_rest_intact(
    run: Run, data_root: DataRoot, raw_folder: Path, content: bytes | None
) -> None:
    assert run("prepare", "gift_cards", assets=READ, config=_config(raw_folder)).success
    stored = {path: path.read_bytes() for path in data_root.root.rglob("*.parquet")}
    assert stored

    reviews = raw_folder / "Gift_Cards_5.json.gz"
    reviews.unlink()
    if content is not None:
        reviews.write_bytes(content)
    result = run("prepare", "gift_cards", assets=READ, config=_config(raw_folder))
    assert not result.success
    (text,) = failure_texts(result)
    assert "expected" in text
    assert "found" in text
    assert "Gift_Cards_5.json" in text
    assert "\n" not in text
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    assert {path: path.read_bytes() for path in stored} == stored
    assert not list(data_root.root.rglob("*.tmp"))


def test_a_folder_of_raw_files_that_is_not_there_is_refused_and_not_made(run: Run, tmp_path: Path) -> None:
    result = run("prepare", assets=READ, config=_config(tmp_path / "nope"))
    assert failure_texts(result) == [
        f"folder of the raw files: expected one that exists, found {tmp_path / 'nope'}, which does not. Correct the "
        "path, or create the folder first if the files are to be fetched into it."
    ]
    assert not (tmp_path / "nope").exists()


def test_what_cannot_be_learned_from_is_refused_before_anything_is_stored(
    run: Run, data_root: DataRoot, raw_folder: Path
) -> None:
    one_each = [line for line in REVIEWS.splitlines(keepends=True) if b'"U0"' in line or b"B000000001" in line]
    (raw_folder / "Gift_Cards_5.json.gz").write_bytes(gzip.compress(b"".join(one_each[:1] + one_each[6:])))
    result = run("prepare", "gift_cards", config=_config(raw_folder))
    (text,) = failure_texts(result)
    assert text.startswith("data set gift_cards: expected rows held out for validation and test, found 0 and 0 (6 rows")
    assert not list(data_root.root.rglob("*.parquet"))


def test_what_became_of_the_rows_is_recorded_and_told(run: Run, raw_folder: Path) -> None:
    repeated = REVIEWS.splitlines(keepends=True)[0].replace(b"1500000000", b"1500000001")
    (raw_folder / "Gift_Cards_5.json.gz").write_bytes(gzip.compress(REVIEWS + repeated))
    console = Console(record=True, width=200)
    with ProgressDisplay(console):
        result = run("prepare", "gift_cards", assets=READ, config=_config(raw_folder))
    (metadata,) = [
        event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("interactions")
    ]
    assert metadata["funnel"].value == [
        {"step": "read", "rows": 37}, {"step": "rejected", "rows": 0}, {"step": "repeated pairs", "rows": 1},
        {"step": "below the k-core", "rows": 0}, {"step": "kept", "rows": 36}, {"step": "train", "rows": 24},
        {"step": "valid", "rows": 6}, {"step": "test", "rows": 6},
    ]  # fmt: skip
    lines = [line.strip() for line in console.export_text().splitlines()]
    (place,) = [number for number, line in enumerate(lines) if line.startswith("✓ interactions ")]
    assert lines[place + 1] == "37 rows read: 0 rejected, 1 repeated; 36 kept: 24 train, 6 valid, 6 test"


def test_a_released_core_that_loses_rows_is_named_on_the_console_and_goes_on(run: Run, raw_folder: Path) -> None:
    rare = REVIEWS.splitlines(keepends=True)[0].replace(b"B000000000", b"B000000009")
    (raw_folder / "reviews_Baby_5.json.gz").write_bytes(gzip.compress(REVIEWS + rare))
    (raw_folder / "meta_Baby.json.gz").write_bytes(gzip.compress(b"{'asin': 'B000000001', 'title': 'One'}\n"))
    console = Console(record=True, width=400)
    with ProgressDisplay(console):
        assert run("prepare", "baby", assets=READ, config=_config(raw_folder)).success
    (told,) = [line.strip() for line in console.export_text().splitlines() if "keeps_its_core" in line]
    assert told == (
        "warning interactions: keeps_its_core 1 of 37 pairs, 0 users and 1 items fell below k_core = 5, expected none: "
        "reviews_Baby_5.json.gz is a 5-core already by its name, which counts repeated rows. Set k_core = 1 in the "
        "catalogue entry to keep them."
    )


def test_editing_a_raw_line_changes_the_data_version_and_touching_the_file_does_not(run: Run, raw_folder: Path) -> None:
    reviews = raw_folder / "Gift_Cards_5.json.gz"
    versions = [data_versions(run("prepare", "gift_cards", assets=READ, config=_config(raw_folder)))]
    reviews.touch()
    versions.append(data_versions(run("prepare", "gift_cards", assets=READ, config=_config(raw_folder))))
    reviews.write_bytes(gzip.compress(REVIEWS.replace(b"5.0", b"4.0", 1)))
    versions.append(data_versions(run("prepare", "gift_cards", assets=READ, config=_config(raw_folder))))
    first, touched, edited = versions
    assert touched == first
    changed = {name for name in first if edited[name] != first[name]}
    assert changed == {"raw_dumps", "reviews", "interactions"}


@pytest.mark.parametrize("what", ["raw file", "manifest"])
def test_a_file_that_changed_after_it_was_hashed_fails_once_with_a_clear_line(
    run: Run, data_root: DataRoot, instance: dg.DagsterInstance, raw_folder: Path, what: str
) -> None:
    assert run("prepare", "gift_cards", assets=READ[:1], config=_config(raw_folder)).success
    path = raw_folder / "Gift_Cards_5.json.gz"
    if what == "manifest":
        path = recorded_path(instance, data_root, READ[0], "gift_cards")
    path.write_bytes(path.read_bytes()[:-20])
    result = run("prepare", "gift_cards", assets=READ[1:])
    (text,) = failure_texts(result)
    assert text.startswith(f"{path}: expected the ")
    assert "found" in text
    assert "aterialise raw_dumps" in text
    assert "\n" not in text
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]


def test_too_many_broken_lines_stop_everything_that_is_made_from_the_raw_tables(
    run: Run, data_root: DataRoot, instance: dg.DagsterInstance, raw_folder: Path
) -> None:
    reviews = raw_folder / "Gift_Cards_5.json.gz"
    reviews.write_bytes(gzip.compress(REVIEWS + b"not json\n" * 5))
    result = run("prepare", "gift_cards", config=_config(raw_folder))
    failed = [
        check
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]
    assert not result.success
    assert {(check.asset_key.path[0], check.check_name) for check in failed} == {
        ("interactions", "few_rejects"), ("item_ids", "few_rejects"),
    }  # fmt: skip
    for check in failed:
        text = check.description or ""
        assert text.startswith("5 of 41 review lines could not be read (12.2%), expected at most 1%; the first is ")
        assert "Gift_Cards_5.json.gz, line 37 (" in text
        assert "Correct the file and materialise raw_dumps again" in text
        assert "\n" not in text
    assert {event.asset_key for event in result.get_asset_materialization_events()} == set(READ)
    rejects = stored_table(instance, data_root, "rejects", "gift_cards")
    assert rejects.height == 5

    definitions = build_definitions({"data_root": data_root})
    everything = definitions.resolve_asset_graph().get_all_asset_keys()

    def requested() -> set[str]:
        tick = dg.evaluate_automation_conditions(definitions, instance)
        return {key.to_user_string() for key in everything if "gift_cards" in tick.get_requested_partitions(key)}

    assert requested() == set()
    reviews.write_bytes(gzip.compress(REVIEWS))
    assert run("prepare", "gift_cards", assets=READ, config=_config(raw_folder)).success
    assert requested() == {"item_profiles", "item_image_embeddings"}


@pytest.mark.slow
def test_an_unknown_setting_of_a_model_is_refused_before_training(prepared_run: Run) -> None:
    config = {"checkpoint__bpr": {"config": {"overrides": {"learning_rat": 1.0}}}}
    result = prepared_run("train", SEEDED, assets=assets_of_models(["bpr"]), config=config)
    (text,) = failure_texts(result)
    assert "learning_rat" in text
    assert "embedding_size" in text
