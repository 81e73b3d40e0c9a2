"""`recmodels results` keeps what other machines measured, tests it, and writes the page and README's table from it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from pipelines.cli.main import main
from pipelines.cli.results import BEGIN, END
from recmodels.studies.results import read_results


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a borrowed machine leaves it: a row a line, and the values of all users side by side in one file."""
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path / "no-data"))
    folder = tmp_path / "measured"
    folder.mkdir()
    generator, lines, users = np.random.default_rng(1), list[str](), pl.DataFrame({"user_id": range(40)})
    for variant, gain in (("freedom", 0.0), ("blast-fn", 0.2)):
        for seed in (0, 1):
            recall = np.clip(generator.uniform(0, 0.8, 40) + gain, 0, 1)
            test = {"recall@20": float(recall.mean()), "ndcg@20": float(recall.mean()) / 2}
            row = {"variant": variant, "dataset": "sports", "seed": seed, "split_digest": "one", "test": test}
            lines.append(json.dumps(row | {"device": "a GPU", "commit": "c0ffee", "seconds": 9.0}))
            own = {f"{variant}|{seed}|recall@20": recall, f"{variant}|{seed}|ndcg@20": recall / 2}
            users = users.with_columns(**own)
    (folder / "rows.jsonl").write_text("\n".join(lines))
    users.write_parquet(folder / "users-sports.parquet")
    return folder


def test_rows_of_another_machine_are_kept_tested_and_written_down(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme, into = tmp_path / "README.md", tmp_path / "docs" / "results.json"
    readme.write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")
    assert main(["results", "--into", str(into), "--rows", str(measured / "rows.jsonl")]) == 0
    assert "4 results, 4 of them read now" in capsys.readouterr().out
    users = pl.read_parquet(measured / "users-sports.parquet")
    means = {
        name: np.mean([users[f"{name}|{seed}|recall@20"] for seed in (0, 1)], axis=0)
        for name in ("freedom", "blast-fn")
    }
    found = read_results(into)
    (test,) = (one for one in found.comparisons if one.figure == "recall@20" and one.first == "blast-fn")
    assert test.t_p_value == pytest.approx(stats.ttest_rel(means["blast-fn"], means["freedom"]).pvalue)
    assert {row.device for row in found.rows} == {"a GPU"}
    assert "| BLAST-FN against FREEDOM | R@20 | 2 |" in into.with_suffix(".md").read_text()
    text = readme.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("\nThe end.\n")
    assert "old" not in text
    assert f"| Sports, measured |  | {means['freedom'].mean():.4f} ± " in text

    # The values of users stay where they are: without them the tests are still known, and nothing changes.
    assert main(["results", "--into", str(into)]) == 0
    assert read_results(into) == found
    assert readme.read_text() == text


def test_a_wrong_line_changes_nothing(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = tmp_path / "docs" / "results.json"
    with (measured / "rows.jsonl").open("a") as lines:
        lines.write('\n{"variant": "freedom"}\n')
    assert main(["results", "--into", str(into), "--rows", str(measured / "rows.jsonl")]) == 1
    assert "line 5" in capsys.readouterr().out
    assert not into.exists()
