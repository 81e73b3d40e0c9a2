"""From the name of a data set to recommendations: the commands over a finished run, and the same in a notebook."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scipy import stats

from assets.serving import open_recommender
from pipelines.cli.main import main
from recmodels.errors import InputError
from recmodels.raw.demo import write_demo_dump
from recmodels.serving.recommender import Recommender

pytestmark = pytest.mark.slow

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The data root of a finished run of a small demo, and what the run printed."""
    folder = tmp_path_factory.mktemp("finished")
    write_demo_dump(folder / "raw", n_users=60, n_items=40)
    (folder / "catalogue.toml").write_text("[demo.models.lightgcn.training]\nepochs = 5\n")
    environment = os.environ | {
        "RECMODELS_DATA": str(folder / "data"),
        "RECMODELS_CATALOGUE": str(folder / "catalogue.toml"),
    }
    environment.pop("DAGSTER_HOME", None)
    command = [sys.executable, "-m", "pipelines.cli.main", "run", "--raw-dir", str(folder / "raw")]
    command += ["--models", "ease,lightgcn", "--seeds", "0,1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "data", done.stdout


@pytest.fixture
def root(finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same data root, which this process takes for its own."""
    monkeypatch.setenv("RECMODELS_DATA", str(finished[0]))
    # The command line points it at the data root, for good.
    monkeypatch.setenv("DAGSTER_HOME", "")
    return finished[0]


@pytest.fixture
def ask(root: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """A command with --json, and the rows it prints."""

    def rows(*arguments: str) -> list[dict[str, Any]]:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return rows


def _table(root: Path, folder: str) -> pl.DataFrame:
    (path,) = (root / "tables" / folder).iterdir()
    return pl.read_parquet(path)


def _named(root: Path, model: str, user: str) -> list[tuple[int, str, str | None, str]]:
    """Return rank, asin, title and source of what is stored for a user."""
    users, items = _table(root, "users/demo"), _table(root, "items/demo")
    user_id = users.filter(pl.col("reviewer_id") == user)["user_id"][0]
    stored = _table(root, f"recommendations/{model}/demo/0").filter(pl.col("user_id") == user_id)
    stored = stored.join(items, on="item_id", maintain_order="left")
    return [
        (rank, asin, title or None, source)
        for rank, asin, title, source in stored.select("rank", "asin", "title", "source").iter_rows()
    ]


def test_a_run_ends_with_three_recommendations_by_title_of_the_best_model(finished: tuple[Path, str]) -> None:
    root, output = finished
    best = _table(root, "leaderboard/demo")["model"][0]
    *_, last = output.splitlines()
    start = next(index for index, line in enumerate(output.splitlines()) if line.startswith("For example, "))
    assert output.splitlines()[start] == f"For example, {best} (seed 0) recommends:"
    shown = output.splitlines()[start + 1 : -1]
    assert len(shown) == 6
    for title, to in zip(shown[::2], shown[1::2], strict=True):
        user = to.split()[1].rstrip(",")
        _, asin, expected, _ = _named(root, best, user)[0]
        assert title.strip().rstrip("…") == (expected or asin)[: len(title.strip().rstrip("…"))]
        assert ", who had " in to
    assert "make explore, then http://127.0.0.1:3100/?dataset=demo" in output
    assert last.startswith(f"More: `recmodels recommend --dataset demo --model {best} --user ")


@pytest.mark.parametrize("model", ["ease", "lightgcn"])
def test_users_get_what_is_stored_for_them_by_name(model: str, root: Path, ask: Ask) -> None:
    user = _table(root, "users/demo")["reviewer_id"][5]
    found = ask("recommend", "--model", model, "--user", user, "--user", "nobody", "-n", "4")
    assert [row["reviewer_id"] for row in found] == [user] * 4 + ["nobody"] * 4
    assert [(row["rank"], row["asin"], row["title"], row["source"]) for row in found[:4]] == _named(root, model, user)[
        :4
    ]
    assert {row["source"] for row in found[4:]} == {"popularity, unknown user"}


def test_the_best_model_answers_where_none_is_named(root: Path, ask: Ask) -> None:
    user = _table(root, "users/demo")["reviewer_id"][5]
    best = _table(root, "leaderboard/demo")["model"][0]
    assert ask("recommend", "--user", user) == ask("recommend", "--user", user, "--model", best, "--seed", "0")


def test_a_history_gets_what_its_user_gets_and_filters_hold(root: Path, ask: Ask) -> None:
    users, items, pairs = (_table(root, f"{name}/demo") for name in ("users", "items", "interactions"))
    train = pairs.filter((pl.col("user_id") == 5) & (pl.col("split") == "train")).join(items, on="item_id")["asin"]
    had = ",".join(train)
    stored = [asin for _, asin, _, _ in _named(root, "ease", users["reviewer_id"][5])]
    found = ask("recommend", "--model", "ease", "--history", had, "-n", "40")
    assert {row["reviewer_id"] for row in found} == {None}
    assert [row["asin"] for row in found if row["asin"] in stored] == stored
    few = ask("recommend", "--model", "ease", "--history", had, "--only", ",".join(stored[:3]), "--without", stored[1])
    assert [row["asin"] for row in few] == [stored[0], stored[2]]


def test_similar_items_come_with_titles(root: Path, ask: Ask) -> None:
    items = _table(root, "items/demo")
    found = ask("similar", "--model", "lightgcn", "--item", items["asin"][3], "-n", "5")
    assert [row["rank"] for row in found] == [1, 2, 3, 4, 5]
    titles = dict(items.select("asin", "title").iter_rows())
    assert all(row["title"] == (titles[row["similar_asin"]] or None) for row in found)
    assert items["asin"][3] not in {row["similar_asin"] for row in found}


def test_the_leaderboard_has_a_row_a_model_metric_and_length(root: Path, ask: Ask) -> None:
    board = _table(root, "leaderboard/demo")
    found = ask("leaderboard", "--dataset", "demo")
    assert list(found[0]) == ["model", "seeds", "metric", "k", "mean", "std"]
    assert found == board.select("model", "metric", "k", "mean", "std", seeds="n_seeds").to_dicts()


def test_a_comparison_is_scipys_over_users_and_seeds(root: Path, ask: Ask) -> None:
    means = [
        pl.concat([_table(root, f"user_metrics/{model}/demo/{seed}") for seed in (0, 1)])
        .group_by("user_id")
        .agg(pl.col("ndcg@10").mean())
        .sort("user_id")["ndcg@10"]
        for model in ("lightgcn", "popularity")
    ]
    (found,) = ask("compare", "lightgcn", "popularity", "--metric", "ndcg", "--k", "10")
    assert found["seeds"] == [0, 1]
    assert found["users"] == len(means[0])
    assert found["difference"] == pytest.approx((means[0] - means[1]).mean())
    assert found["relative"] == pytest.approx((means[0] - means[1]).mean() / means[1].mean())
    assert found["t_p_value"] == pytest.approx(stats.ttest_rel(*means).pvalue)


def test_the_data_sets_say_what_was_made_of_them(root: Path, ask: Ask) -> None:
    found = {row["dataset"]: row for row in ask("datasets")}
    assert found["baby"]["users"] is None
    assert found["baby"]["sources"] == ["amazon2014", "mmrec"]
    sizes = {name: _table(root, f"{table}/demo").height for name, table in (("users", "users"), ("items", "items"))}
    assert found["demo"] == {
        "dataset": "demo",
        "title": "Demo",
        "sources": ["amazon2014"],
        **sizes,
        "rows": _table(root, "interactions/demo").height,
        "trained": ["ease", "lightgcn"],
    }


def test_the_current_checkpoint_is_the_one_on_record(root: Path) -> None:
    folder = root / "checkpoints" / "checkpoint" / "ease" / "demo" / "0"
    (run,) = folder.iterdir()
    older = shutil.copytree(run, folder / "another")
    try:
        with pytest.raises(InputError, match="expected the folder of one run, found those of 2"):
            Recommender.load(folder)
        user = _table(root, "users/demo")["reviewer_id"][5]
        served = open_recommender("demo", "ease", 0)
        found = served.recommend_for(user, 3)
        assert found["asin"].to_list() == [asin for _, asin, _, _ in _named(root, "ease", user)[:3]]
    finally:
        shutil.rmtree(older)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("recommend", "--user", "x", "--model", "lightgnc"), ("--model", "Did you mean lightgcn?")),
        (("recommend", "--user", "x", "--model", "calibrated/eas"), ("Did you mean calibrated/ease?",)),
        (("recommend", "--user", "x", "--model", "bpr"), ("checkpoint of bpr", "found none", "ease, lightgcn")),
        (("recommend", "--user", "x", "--model", "ease", "--seed", "3"), ("seed 3", "found seeds 0, 1")),
        (("recommend", "--user", "x", "--dataset", "dem"), ("--dataset", "Did you mean demo?")),
        (("recommend",), ("--user, --history", "found neither")),
        (("recommend", "--user", "x", "--history", "y"), ("--user, --history", "found both")),
        (("similar", "--item", "nothing"), ("asins that the model knows", "'nothing'")),
        (("recommend", "--dataset", "baby", "--user", "x"), ("leaderboard of baby was never materialised",)),
        (
            ("leaderboard", "--dataset", "baby"),
            ("leaderboard of baby was never materialised", "`recmodels run --dataset baby`"),
        ),
        (("recommend", "--user", " "), ("--user", "found an empty one")),
        (
            ("recommend", "--user", "x", "--model", "ease", "--only", " "),
            ("only: expected asins that the model knows",),
        ),
        (("compare", "ease", "bpr"), ("test metrics of bpr for demo", "found none")),
        (("compare", "ease", "esae"), ("B: expected one of", "Did you mean ease?")),
        (("compare", "ease", "lightgcn", "--k", "7"), ("metric: expected one of recall@10", "'recall@7'")),
    ],
)
def test_a_mistake_is_one_clear_line(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert main(arguments) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


def test_a_data_root_without_a_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "nothing"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with pytest.raises(InputError, match=r"expected those of a finished run, found none\. Run `recmodels run` first"):
        open_recommender("demo", "ease")
    assert not (tmp_path / "nothing").exists()
