"""A study's table is what its rows give; test rows choose nothing."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from recmodels.errors import InputError
from recmodels.studies.entries import Study, load_studies
from recmodels.studies.page import overview, rendered, results_page
from recmodels.studies.results import (
    ResultRow,
    Results,
    compared,
    of_row,
    read_results,
    read_rows,
    users_beside,
    write_results,
)
from recmodels.studies.tables import study_table

STUDY = Study(
    name="pair",
    title="A pair",
    about="Does it help?",
    rows=["freedom", "freedom-ot", "bpr"],
    data_sets=["baby"],
    seeds=[0, 1],
    comparisons=[("freedom-ot", "freedom")],
    published={"baby": {"freedom": {"recall@20": 0.5}, "freedom-ot": {"recall@20": 0.6}}},
)
N_USERS = 50


def _row(variant: str, seed: int, recall: float, **more: object) -> ResultRow:
    values = {"test": {"recall@20": recall, "ndcg@20": recall / 2}, "valid": {"recall@20": recall / 4}}
    values |= {"split_digest": "one", "seconds": 60.0 * (seed + 1), "best_epoch": 7 + seed, **more}
    return ResultRow.model_validate({"variant": variant, "dataset": "baby", "seed": seed, **values})


@pytest.fixture
def measured(tmp_path: Path) -> Results:
    """Two seeds of two rows as a script writes them: a line each, with the values of the users in files beside it."""
    generator = np.random.default_rng(0)
    lines: list[str] = []
    for variant, gain in (("freedom", 0.0), ("freedom-ot", 0.05)):
        for seed in (0, 1):
            recall = np.clip(generator.uniform(0, 0.9, N_USERS) + gain, 0, 1)
            users = pl.DataFrame({"user_id": range(N_USERS), "recall@20": recall, "ndcg@20": recall / 2})
            users.write_parquet(tmp_path / f"{variant}-{seed}.parquet")
            row = _row(variant, seed, float(recall.mean()), users=f"{variant}-{seed}.parquet")
            lines.append(json.dumps(row.model_dump(mode="json")))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    results = Results().with_rows(read_rows(tmp_path / "rows.jsonl"))
    return results.with_comparisons(
        compared(results.rows, users_beside(tmp_path), "baby", STUDY.comparisons, STUDY.metrics)
    )


def test_means_spread_and_differences_are_those_of_the_rows(measured: Results) -> None:
    table = study_table(STUDY, "baby", measured)
    values = [row.test["recall@20"] for row in measured.rows if row.variant == "freedom"]
    one = table.figures.row(0, named=True)
    assert one["mean"] == pytest.approx(np.mean(values))
    assert one["std"] == pytest.approx(np.std(values, ddof=1))
    assert one["difference"] == pytest.approx(np.mean(values) - 0.5)
    assert one["seconds"] == 90.0
    assert one["n_seeds"] == 2
    assert table.missing == [("bpr", 0), ("bpr", 1)]
    assert study_table(STUDY, "baby", measured, seeds=[1]).figures["n_seeds"].to_list() == [1] * 4


def test_tests_are_paired_over_users_and_corrected_for_their_number(measured: Results, tmp_path: Path) -> None:
    found = study_table(STUDY, "baby", measured).tests
    pair = [
        np.mean([pl.read_parquet(tmp_path / f"{name}-{seed}.parquet")["recall@20"] for seed in (0, 1)], axis=0)
        for name in ("freedom-ot", "freedom")
    ]
    expected = stats.ttest_rel(*pair).pvalue
    assert [test.comparison.figure for test in found] == ["recall@20", "ndcg@20"]
    assert found[0].comparison.t_p_value == pytest.approx(expected)
    assert found[0].comparison.difference == pytest.approx(pair[0].mean() - pair[1].mean())
    # Both figures give the same p-value here, so that Holm doubles the smaller and keeps the order.
    assert found[0].corrected == pytest.approx(min(1, 2 * expected))
    assert found[0].claimed == pytest.approx(0.1)
    assert found[1].claimed is None


@pytest.mark.parametrize(
    ("difference", "p_value", "verdict"),
    [(0.02, 0.001, "held"), (-0.02, 0.001, "opposite"), (0.02, 0.2, "not shown"), (0.0, 1.0, "not shown")],
)
def test_a_claim_holds_only_in_its_direction_and_beyond_chance(
    measured: Results, difference: float, p_value: float, verdict: str
) -> None:
    first = measured.comparisons[1].model_copy(update={"difference": difference, "t_p_value": p_value})
    assert first.figure == "recall@20"
    results = Results(rows=measured.rows, comparisons=[first])
    assert [test.verdict for test in study_table(STUDY, "baby", results).tests] == [verdict]
    for how, of_words in (
        ("better", verdict),
        ("worse", {"held": "opposite", "opposite": "held"}.get(verdict, verdict)),
    ):
        study = STUDY.model_copy(update={"published": {}, "claims": [("freedom-ot", "freedom", how)]})
        table = study_table(study, "baby", results)
        assert [test.verdict for test in table.tests] == [of_words]
        assert f"| {how}: {of_words} |" in rendered(table)
        assert f"1 {of_words}" in rendered(table)


def test_a_file_of_results_comes_back_as_it_was(measured: Results, tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", measured)
    assert read_results(tmp_path / "results.json") == measured
    assert read_results(tmp_path / "nothing.json") == Results()


def test_a_test_of_rows_that_were_measured_again_is_forgotten(measured: Results) -> None:
    assert len(measured.comparisons) == 2
    assert measured.with_rows([_row("bpr", 0, 0.1)]).comparisons == measured.comparisons
    assert not measured.with_rows([_row("freedom", 0, 0.1)]).comparisons


def test_seeds_of_other_settings_are_not_averaged_and_older_figures_give_way() -> None:
    older = [_row("bpr", seed, 0.1, source="older") for seed in (0, 1, 2)]
    assert of_row(older, "baby", "bpr").keys() == {0, 1, 2}
    newer = [_row("bpr", 0, 0.2), _row("bpr", 1, 0.3, settings={"n": 1}), _row("bpr", 2, 0.4, settings={"n": 1})]
    assert [row.test["recall@20"] for row in of_row([*older, *newer], "baby", "bpr").values()] == [0.3, 0.4]
    assert "| BPR * | 2 |" in rendered(study_table(STUDY, "baby", Results(rows=older)))
    assert "| BPR | 1 |" in rendered(study_table(STUDY, "baby", Results(rows=[*older, newer[0]])))


@pytest.mark.parametrize("settings", [{"n": 1, "training": {"device": "cuda"}}, {"n": 1, "training.device": "cpu"}])
def test_seeds_are_averaged_on_whatever_device_they_were_trained(settings: dict) -> None:
    trained = {"n": 1, "training": {"device": "cpu"}}
    rows = [_row("bpr", 0, 0.1, settings=settings), _row("bpr", 1, 0.2, settings=trained)]
    assert of_row(rows, "baby", "bpr").keys() == {0, 1}


def test_rows_of_two_splits_are_no_table(measured: Results) -> None:
    with pytest.raises(InputError, match="results of one split"):
        study_table(STUDY, "baby", measured.with_rows([_row("bpr", 0, 0.1, split_digest="two")]))


@pytest.mark.parametrize("text", ["{", '{"variant": "bpr"}', '{"variant": "bpr", "recal": 1}'])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(f"\n{text}\n")
    with pytest.raises(InputError, match="line 2"):
        read_rows(tmp_path / "rows.jsonl")


def test_the_page_says_what_was_measured_what_was_tested_and_what_is_missing(measured: Results) -> None:
    page = results_page(measured, [STUDY, *load_studies().values()], "# Results")
    mean = np.mean([row.test["recall@20"] for row in measured.rows if row.variant == "freedom"])
    assert f"| FREEDOM | 2 | {mean:.4f} ± " in page
    assert f"| 0.5000 ({mean - 0.5:+.4f}) |" in page
    assert "| FREEDOM + OT against FREEDOM | R@20 | 2 |" in page
    (test,) = (one for one in measured.comparisons if one.figure == "recall@20")
    assert f"| FREEDOM + OT | FREEDOM | Baby | R@20 | +0.1000 | {test.difference:+.4f} | " in page  # the paper's claim
    assert "Not measured yet (seeds): BPR (0, 1)." in page
    assert "## BLAST, table 3" in page  # it has rows of that study too
    assert "## RecGOAT" not in page  # of which nothing was measured
    line = overview(measured, load_studies(), [("table3", "freedom"), ("table4", "blast-all")]).splitlines()
    assert line[0] == "| test Recall@20 | FREEDOM | BLAST |"
    assert line[2].startswith(f"| Baby, measured | {mean:.4f} ± ")
    assert line[3] == "| Baby, published | 0.0986 | 0.1171 |"


def _refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    path = tmp_path / "studies.toml"
    path.write_text(f"[studies.mine]\ntitle = 'Mine'\nabout = ''\ndata_sets = ['demo']\nseeds = [0]\n{text}\n")
    monkeypatch.setenv("RECMODELS_STUDIES", str(path))
    with pytest.raises(InputError, match="mine") as error:
        load_studies()
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rows = ['bpr']\nselect_by = 'test recall@20'", "they choose nothing"),
        ("panels = [{ title = 'a', sweep = 'figure3-ratio' }]", "compared on validation rows"),
        ("rows = ['figure3-layers-2-1-1']", "for validation rows alone"),
        ("rows = ['calibrated/figure3-layers-2-1-1']", "for validation rows alone"),
        ("rows = ['bpr']\nrows_of = 'valid'\nmetrics = ['ndcg@20']", "on validation rows"),
        ("rows = ['bprr']", "Did you mean bpr"),
        ("rows = ['bpr']\ncomparisons = [['bpr', 'ease']]", "rows of the study"),
        ("rows = ['bpr', 'ease']\nclaims = [['bpr', 'ease', 'better']]", "pairs of the comparisons"),
        ("rows = ['bpr']\nmetrics = ['recall@7']", "figures among"),
        ("rows = ['bpr']\nsedes = [1]", "Did you mean seeds"),
    ],
)
def test_what_is_wrong_or_would_leak_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    assert told in _refused(tmp_path, monkeypatch, text)


def test_a_study_on_validation_rows_shows_no_test_figure() -> None:
    study = load_studies()["figure3"]
    rows = [_row(name, 0, 0.4) for name in study.rows]
    table = study_table(study, "baby", Results(rows=rows))
    assert set(table.figures["mean"]) == {0.1}  # what `valid` says; `test` says 0.4
    assert "0.4000" not in rendered(table)


def test_the_best_point_of_a_sweep_is_that_of_the_validation_rows() -> None:
    study = load_studies()["figure3"]
    values = {row: 0.1 + 0.001 * number for number, row in enumerate(study.rows)}
    values["figure3-ratio-0.3"] = 0.2
    rows = [_row(name, 0, 0.4, valid={"recall@20": value}) for name, value in values.items()]
    page = rendered(study_table(study, "baby", Results(rows=rows)))
    assert "- (a) augmentation ratio: best is BLAST, ratio 0.3, 0.2000\n" in page
    assert page.count("best is") == 4
