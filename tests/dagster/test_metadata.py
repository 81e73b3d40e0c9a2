"""What the interface shows of each asset is what its tables hold."""

import base64
import shutil
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._serdes import serialize_value
from graph_runs import failure_texts, runner

from assets.support.resources import DataRoot
from pipelines.jobs import assets_of_models
from recmodels.reporting.tables import CELL_CHARACTERS

SEEDS = ("0", "1")
SHOWN = CELL_CHARACTERS - 1
LARGEST_EVENT = 100_000
LARGEST_PICTURE = 20_000
PICTURE = "![](data:image/png;base64,"

pytestmark = pytest.mark.slow


class Shown:
    """The metadata of one partition, by asset, and the tables it is about."""

    def __init__(self, root: Path, events: list[dg.AssetMaterialization]) -> None:
        self.root = root
        self.events = {(event.asset_key.to_user_string(), event.partition or ""): event for event in events}

    def entry(self, asset: str, entry: str, partition: str = "demo") -> Any:
        """Return the value of an entry."""
        return self.events[asset, partition].metadata[entry].value

    def rows(self, asset: str, entry: str, partition: str = "demo") -> list[dict[str, Any]]:
        """Return the rows of an entry that is a table."""
        value = self.events[asset, partition].metadata[entry]
        assert isinstance(value, dg.TableMetadataValue)
        return [dict(record.data) for record in value.records]

    def table(self, asset: str, partition: str = "demo") -> pl.DataFrame:
        """Return the table that the record names."""
        return pl.read_parquet(self.root / str(self.entry(asset, "stored_at", partition)))


@pytest.fixture(scope="module")
def shown(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The demo prepared, trained with two seeds and evaluated."""
    folder = tmp_path_factory.mktemp("shown")
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    with dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        run = runner(DataRoot(path=str(folder / "data")), instance)
        for seed in SEEDS:
            trained = run("train", {"dataset": "demo", "seed": seed}, assets=assets_of_models(["bpr"]))
            assert trained.success, failure_texts(trained)
        evaluated = run("evaluate")
        assert evaluated.success, failure_texts(evaluated)
        records = [
            record
            for key in instance.all_asset_keys()
            for record in instance.fetch_materializations(key, limit=len(SEEDS)).records
        ]
        yield Shown(folder / "data", [event for record in records if (event := record.asset_materialization)])


def test_a_split_is_told_by_its_rows_users_and_items(shown: Shown) -> None:
    table = shown.table("interactions")
    rows = {row["split"]: row for row in shown.rows("interactions", "splits")}
    assert list(rows) == ["train", "valid", "test", "all"]
    for split, row in rows.items():
        pairs = [pair for *pair, of in table.select("user_id", "item_id", "split").iter_rows() if split in (of, "all")]
        users, items = ({pair[side] for pair in pairs} for side in (0, 1))
        assert (row["rows"], row["users"], row["items"]) == (str(len(pairs)), str(len(users)), str(len(items)))
        assert row["rows a user"] == f"{len(pairs) / len(users):.1f}"
        assert row["density"] == f"{100 * len(pairs) / (len(users) * len(items)):.3f}%"


def test_metrics_by_activity_are_the_means_over_those_users(shown: Shown) -> None:
    users = shown.table("user_metrics/bpr", "demo|0")
    rows = {row["part"]: row for row in shown.rows("metrics/bpr", "figures", "demo|0")}
    parts = {
        "all users": users,
        "0-4 rows": users.filter(pl.col("n_train") < 5),
        "5-9 rows": users.filter(pl.col("n_train").is_between(5, 9)),
    }
    for part, of_it in parts.items():
        assert rows[part]["users"] == str(of_it.height)
        for figure in ("recall@10", "recall@20", "ndcg@10", "ndcg@20"):
            assert rows[part][figure] == f"{statistics.fmean(of_it[figure]):.4f}"
    assert rows["head items"]["ndcg@20"] == ""


def test_a_leaderboard_shows_mean_and_spread_over_the_seeds_best_first(shown: Shown) -> None:
    values = {
        model: [statistics.fmean(shown.table(f"user_metrics/{model}", f"demo|{seed}")["recall@20"]) for seed in SEEDS]
        for model in ("bpr", "popularity", "random")
    }
    assert statistics.stdev(values["popularity"]) == 0  # what knows no chance has no spread to show
    told = {
        model: f"{statistics.fmean(of):.4f}" + (f" ± {statistics.stdev(of):.4f}" if model != "popularity" else "")
        for model, of in values.items()
    }
    order = sorted(values, key=lambda model: -statistics.fmean(values[model]))
    rows = shown.rows("leaderboard", "figures")
    shown_rows = [(row["model"], row["recall@20"], row["seeds"]) for row in rows]
    assert shown_rows == [(model, told[model].replace(" ", ""), "2") for model in order]
    best, second = order[:2]
    for asset in ("leaderboard", "report"):
        assert f"**{best}** ({told[best]}), then **{second}** ({told[second]})" in shown.entry(asset, "summary")


def test_recommendations_stand_beside_what_the_user_had_before_the_test(shown: Shown) -> None:
    titles = dict(shown.table("items").select("item_id", "title").iter_rows())
    recommended = shown.table("recommendations/bpr", "demo|1")
    interactions = shown.table("interactions")
    examples = _by_user(shown, "recommendations/bpr", "demo|1")
    assert len(examples) == 3
    for user, told in examples.items():
        best = recommended.filter(pl.col("user_id") == user).sort("rank").head(5)
        assert told["gets"] == [titles[item][:SHOWN] for item in best["item_id"]]
        before = interactions.filter((pl.col("user_id") == user) & (pl.col("split") != "test"))["item_id"].to_list()
        assert told["had"]
        assert set(told["had"]) <= {titles[item][:SHOWN] for item in before}


def _by_user(shown: Shown, asset: str, partition: str = "demo") -> dict[int, dict[str, list[str]]]:
    """Return the titles in an asset's examples by the id of the user they stand below and by what they are."""
    ids = dict(shown.table("users").select("reviewer_id", "user_id").iter_rows())
    found: dict[int, dict[str, list[str]]] = {}
    user = -1
    for row in shown.rows(asset, "examples", partition):
        if row["what"] == "user":
            user = ids[row["which"]]
            found[user] = defaultdict(list)
        else:
            found[user][row["what"]].append(_uncut(row["which"]))
    return found


def test_neighbours_and_added_items_are_named_as_the_tables_hold_them(shown: Shown) -> None:
    titles = dict(shown.table("items").select("item_id", "title").iter_rows())
    knn = shown.table("item_text_knn").filter((pl.col("src") == 0) & (pl.col("dst") != 0)).sort("rank").head(4)
    rows = shown.rows("item_text_knn", "examples")[:4]
    assert [(_uncut(row["item"]), _uncut(row["near it"])) for row in rows] == [
        (titles[0][:SHOWN], titles[item][:SHOWN]) for item in knn["dst"]
    ]

    added = shown.table("augmented_interactions")
    examples = _by_user(shown, "augmented_interactions")
    assert any(told["added"] for told in examples.values())
    for user, told in examples.items():
        items = added.filter(pl.col("user_id") == user)["item_id"]
        assert set(told["added"]) <= {titles[item][:SHOWN] for item in items}


def _uncut(title: str) -> str:
    return title.removesuffix("…")[:SHOWN]


def test_profiles_stand_beside_what_they_were_made_from(shown: Shown) -> None:
    titles = dict(shown.table("items").select("item_id", "title").iter_rows())
    popularity = shown.table("interactions").filter(pl.col("split") == "train")["item_id"].value_counts()
    profiles = shown.table("item_profiles")
    rows = shown.rows("item_profiles", "examples")
    most = popularity.sort("count", "item_id", descending=[True, False]).head(3)["item_id"].to_list()
    asins = shown.table("item_ids")["asin"]
    assert [row["item"] for row in rows] == [asins[item] for item in most]
    for row, item in zip(rows, most, strict=True):
        assert row["profile"] == profiles["profile"][item]
        assert row["made from"].startswith(titles[item])
        assert row["written by"] == "extractive"

    test = shown.table("interactions").filter(pl.col("split") == "test")
    users = shown.rows("user_profiles", "examples")
    ids = dict(shown.table("users").select("reviewer_id", "user_id").iter_rows())
    assert len(users) == 3
    for row in users:
        hidden = test.filter(pl.col("user_id") == ids[row["user"]])["item_id"]
        assert row["made from"]
        assert not [item for item in hidden if titles[item] and titles[item] in row["made from"]]


def test_a_checkpoint_marks_the_epoch_that_was_kept(shown: Shown) -> None:
    (folder,) = (shown.root / "checkpoints" / "checkpoint" / "bpr" / "demo" / "0").iterdir()
    history = pl.read_parquet(folder / "history.parquet")
    (best,) = [row for row in shown.rows("checkpoint/bpr", "progress", "demo|0") if row["kept"]]
    assert best["validation recall@20"] == f"{max(history['valid_recall']):.4f}"
    assert int(best["epoch"]) == history["epoch"][int(history["valid_recall"].arg_max() or 0)]


@pytest.mark.parametrize(
    ("asset", "entries"),
    [
        ("checkpoint/bpr", ("valid_recall@20", "epochs", "steps", "seconds")),
        ("metrics/bpr", ("recall@10", "recall@20", "ndcg@10", "ndcg@20")),
        ("metrics/popularity", ("recall@20", "ndcg@20")),
    ],
)
def test_figures_are_numbers_that_dagster_plots_over_the_partitions(
    shown: Shown, asset: str, entries: tuple[str, ...]
) -> None:
    numbers = dg.FloatMetadataValue | dg.IntMetadataValue
    for seed in SEEDS:
        metadata = shown.events[asset, f"demo|{seed}"].metadata
        assert all(isinstance(metadata[entry], numbers) for entry in entries)
        lines_of_no_meaning = {"seed", "best_epoch", "manifest_bytes"}
        assert not [name for name in lines_of_no_meaning & metadata.keys() if isinstance(metadata[name], numbers)]
    users = {seed: shown.table(f"user_{asset}", f"demo|{seed}") for seed in SEEDS if asset.startswith("metrics")}
    for seed, table in users.items():
        assert shown.entry(asset, "recall@20", f"demo|{seed}") == pytest.approx(statistics.fmean(table["recall@20"]))


def test_a_checkpoint_is_as_large_as_its_files(shown: Shown) -> None:
    folder = shown.root / shown.entry("checkpoint/bpr", "stored_at", "demo|0")
    size = int(subprocess.check_output(["du", "--bytes", "--summarize", folder], text=True).split()[0])
    assert shown.entry("checkpoint/bpr", "stored_bytes", "demo|0") == size - folder.stat().st_size


def test_no_record_names_a_place_that_another_data_root_does_not_have(shown: Shown) -> None:
    for (asset, _), event in shown.events.items():
        for name, value in event.metadata.items():
            elsewhere = isinstance(value, dg.PathMetadataValue) or str(shown.root) in str(value.value)
            assert not elsewhere or asset == "raw_dumps", (asset, name)


def test_columns_say_what_they_hold(shown: Shown) -> None:
    schemas: dict[str, dg.TableSchema] = {
        asset: entry.value
        for (asset, _), event in shown.events.items()
        if isinstance(entry := event.metadata.get("dagster/column_schema"), dg.TableSchemaMetadataValue)
    }
    assert {"interactions", "metrics/bpr", "recommendations/bpr", "user_knn", "leaderboard"} <= schemas.keys()
    for asset, schema in schemas.items():
        assert all(column.description for column in schema.columns), asset
    (split,) = [column for column in schemas["interactions"].columns if column.name == "split"]
    assert split.type == "one of train, valid, test"


def test_the_headline_of_a_leaderboard_stands_where_no_panel_cuts_it_off(shown: Shown) -> None:
    figures = shown.events["leaderboard", "demo"].metadata["figures"]
    assert isinstance(figures, dg.TableMetadataValue)
    columns = [column.name for column in figures.schema.columns]
    assert columns[:4] == ["model", "seeds", "recall@20", "ndcg@20"]


def test_no_table_is_wider_than_the_panel(shown: Shown) -> None:
    """A window of 1500 pixels has 669 for it beside the names of entries, and 480 where partitions have two parts."""
    wide = {
        (asset, name): columns
        for (asset, partition), event in shown.events.items()
        for name, value in event.metadata.items()
        if isinstance(value, dg.TableMetadataValue) and name in ("examples", "figures", "preview", "splits", "progress")
        if sum(columns := _pixels(value, broken=name == "preview" or asset.endswith(("_knn", "_profiles"))))
        > (480 if "|" in partition else 669)
    }
    assert wide == {}


def _pixels(table: dg.TableMetadataValue, *, broken: bool) -> list[float]:
    """Return what each column needs in the interface's fonts if its cells are broken at spaces, or stay in one line."""

    def longest(cell: object) -> int:
        return max(map(len, str(cell).split() if broken else [str(cell)]), default=0)

    return [
        17 + max(7.2 * longest(column.name), *(8.43 * longest(row.data[column.name]) for row in table.records))
        for column in table.schema.columns
    ]


def test_pictures_and_events_are_small(shown: Shown) -> None:
    pictures = {
        (asset, name): base64.b64decode(str(value.value).removeprefix(PICTURE).removesuffix(")"))
        for (asset, _), event in shown.events.items()
        for name, value in event.metadata.items()
        if str(value.value).startswith(PICTURE)
    }
    assert {
        ("interactions", "activity"),
        ("metrics/bpr", "recall_by_group"),
        ("leaderboard", "recall"),
        ("checkpoint/bpr", "curve"),
        ("item_text_knn", "histograms"),
        ("augmented_interactions", "before_and_after"),
    } <= pictures.keys()
    assert all(png.startswith(b"\x89PNG") for png in pictures.values())
    assert {name: len(png) for name, png in pictures.items() if len(png) > LARGEST_PICTURE} == {}
    sizes = {name: len(serialize_value(event)) for name, event in shown.events.items()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_EVENT} == {}


def test_recommendations_and_report_link_to_the_explorer(shown: Shown) -> None:
    explorer = "http://127.0.0.1:3100"
    assert shown.entry("recommendations/bpr", "explorer", "demo|1") == f"{explorer}/?dataset=demo&model=bpr&seed=1"
    assert shown.entry("report", "open") == f"{explorer}/report/demo"
    assert shown.entry("report", "explorer") == f"{explorer}/?dataset=demo"
    for asset, entry, partition in (("recommendations/bpr", "explorer", "demo|0"), ("report", "open", "demo")):
        assert isinstance(shown.events[asset, partition].metadata[entry], dg.UrlMetadataValue)
