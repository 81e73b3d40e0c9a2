"""What the page tells of the models, their trainings, and a few users, compared with what it was given."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest

from recmodels.evaluation.leaderboard import paired_test
from recmodels.reporting.build import ReportInputs, build_report
from recmodels.reporting.report import without_measured

OVERRIDE = "\N{RIGHT-TO-LEFT OVERRIDE}"
END_OF_ISOLATE = "\N{POP DIRECTIONAL ISOLATE}"


class _Page(HTMLParser):
    """The cells of every row by the section they stand in, and every text with the elements around it."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.texts: list[tuple[str, tuple[str, ...]]] = []
        self.marked: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._section = ""
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "h2":
            self._section = str(attributes["id"])
        if tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.rows[self._section][-1].append("")
        if tag not in self.VOID:
            self._open.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        inside = tuple(tag for tag, _ in self._open)
        self.texts.append((data, inside))
        if {"td", "th"} & set(inside):
            self.rows[self._section][-1][-1] += data
        if any(tag == "td" and attributes.get("class") == "hit" for tag, attributes in self._open):
            self.marked.append(data)

    def row(self, section: str, first: str) -> list[str]:
        return next(row for row in self.rows[section] if row[0] == first)


def test_every_section_is_in_the_contents_and_those_without_content_are_not_there(inputs: ReportInputs) -> None:
    def sections(html: str) -> tuple[list[str], list[str]]:
        return re.findall(r'<h2 id="(\w+)"', html), re.findall(r'<a href="#(\w+)"', html)

    full = ["leaderboard", "differences", "groups", "training", "data", "users", "profiles", "lineage"]
    assert sections(build_report(inputs)) == (full, full)
    metrics = inputs.metrics.filter(pl.col("grouping") == "all")
    bare = replace(inputs, metrics=metrics, user_metrics={}, trainings=[], histories={}, recommendations={})
    left = ["leaderboard", "data", "users", "profiles", "lineage"]
    assert sections(build_report(bare)) == (left, left)


def test_the_headline_comes_first_and_all_notices_stand_in_one_box_after_it(inputs: ReportInputs) -> None:
    html = build_report(replace(inputs, notes=["first notice", "second notice"]))
    headline = html.index("Best by test Recall@20: blast (0.2500 ± 0.0100), then popularity (0.1250)")
    assert html.count("<aside") == 1
    assert headline < html.index("<aside") < html.index("first notice") < html.index("second notice")
    assert "<aside" not in build_report(replace(inputs, notes=[]))


def test_what_is_not_above_popularity_is_named_with_the_result(inputs: ReportInputs) -> None:
    assert "Not above popularity" not in build_report(inputs)
    weak = inputs.leaderboard.filter(pl.col("model") == "blast").with_columns(mean=0.125)
    named = weak.with_columns(model=pl.lit("bpr"), std=0.001)
    board = pl.concat([inputs.leaderboard, named])
    assert "seeds. Not above popularity: bpr.</p>" in build_report(replace(inputs, leaderboard=board))


def test_a_row_that_comes_out_the_same_with_every_seed_has_no_spread(inputs: ReportInputs) -> None:
    same = pl.when(pl.col("model") == "popularity").then(pl.lit(0.0)).otherwise("std")
    board = inputs.leaderboard.with_columns(std=same, n_seeds=pl.lit(3, pl.Int32))
    page = _Page(build_report(replace(inputs, leaderboard=board)))
    assert page.row("leaderboard", "popularity") == ["popularity", "3", *["0.1250"] * 4]
    assert page.row("leaderboard", "blast") == ["blast", "3", *["0.2500 ± 0.0100"] * 4]


def test_neighbours_on_the_board_are_compared_by_the_paired_test_on_means_over_the_seeds(inputs: ReportInputs) -> None:
    means = {
        model: pl.concat(frame.collect() for frame in runs).group_by("user_id").agg(pl.col("recall@20").mean())
        for model, runs in inputs.user_metrics.items()
    }
    test = paired_test(means["blast"], means["popularity"], "recall@20")
    row = _Page(build_report(inputs)).row("differences", "blast")
    p_values = [f"{p:.3f}" for p in (test.t_p_value, test.wilcoxon_p_value, test.t_p_value)]
    differ = "different" if test.t_p_value < 0.05 else "not told apart"
    assert row == ["blast", "popularity", f"{test.difference:+.4f}", *p_values, differ]


def test_figures_by_group_are_means_over_the_seeds_of_this_split(inputs: ReportInputs) -> None:
    other = inputs.metrics.with_columns(split_digest=pl.lit("another"), value=pl.lit(0.9))
    page = _Page(build_report(replace(inputs, metrics=pl.concat([inputs.metrics, other]))))
    assert [row for row in page.rows["groups"] if row[0] == "blast"] == [["blast", "0.2500"]] * 2
    assert [row for row in page.rows["groups"] if row[0] == "popularity"] == [["popularity", "0.1250"]] * 2


def test_how_a_model_was_trained_is_told_by_seeds_kept_epochs_seconds_and_settings(inputs: ReportInputs) -> None:
    row = _Page(build_report(inputs)).row("training", "blast")
    assert row == ["blast", "0, 1, 2", "5 of 30, 6 of 30, 7 of 30", "2.50", "training.batch_size = 64"]


def test_a_funnel_is_shown_where_it_was_recorded(inputs: ReportInputs) -> None:
    page = _Page(build_report(inputs))
    assert page.rows["data"][:3] == [["step", "rows", "share"], ["read", "200", "100.0%"], ["split", "33", "16.5%"]]
    assert _Page(build_report(replace(inputs, funnel=[]))).rows["data"][0][0] == "users"


def test_the_lists_of_all_models_stand_side_by_side_in_the_order_of_the_board_with_hits_marked(
    inputs: ReportInputs,
) -> None:
    items = inputs.items.with_columns(title="item " + pl.col("item_id").cast(pl.String))
    lists = {
        model: pl.DataFrame({"user_id": [0] * len(ids), "rank": range(1, len(ids) + 1), "item_id": ids})
        for model, ids in {"popularity": [7, 0], "blast": [0, 5, 6]}.items()
    }
    html = build_report(replace(inputs, items=items, recommendations=lists))
    page = _Page(html)
    assert page.rows["users"][-4:] == [
        ["rank", "blast", "popularity"],
        ["1", "✓ item 0", "item 7"],
        ["2", "item 5", "✓ item 0"],
        ["3", "item 6", ""],
    ]
    assert "".join(page.marked).count("item 0") == 2
    assert "".join(page.marked).replace("✓", "").split() == ["item", "0"] * 2
    assert "blast at 1, popularity at 2" in html


def test_no_text_of_the_data_turns_what_stands_beside_it(inputs: ReportInputs) -> None:
    turned = f"before {OVERRIDE}{END_OF_ISOLATE}{OVERRIDE} after"
    items = inputs.items.with_columns(title=pl.lit(turned))
    html = build_report(replace(inputs, items=items, title=turned))
    assert not set(html) & {OVERRIDE, END_OF_ISOLATE}
    found = [inside for text, inside in _Page(html).texts if "before  after" in text and "title" not in inside]
    assert len(found) > 10
    assert all(inside[-1] == "bdi" for inside in found)


def test_it_says_what_trained_the_models_and_with_which_code(inputs: ReportInputs) -> None:
    assert "trained on" not in build_report(inputs)
    places = [("x86_64, 2 threads", "0" * 40), ("A <GPU>", f"{'1' * 40}-dirty"), ("x86_64, 2 threads", "0" * 40)]
    runs = [
        replace(run, device=device, commit=commit)
        for run, (device, commit) in zip(inputs.trainings, places, strict=True)
    ]
    html = build_report(replace(inputs, trainings=runs))
    told = f"trained on x86_64, 2 threads; A &lt;GPU&gt; · commits {'0' * 12}, {'1' * 12}-dirty</span>"
    assert told in html[: html.index("</header>")]


def test_times_machine_and_code_stand_in_the_page_and_alone_do_not_make_another_one(inputs: ReportInputs) -> None:
    first = build_report(inputs)
    later = [replace(run, seconds=99.0, device="another", commit="abc") for run in inputs.trainings]
    second = build_report(replace(inputs, newest_input=1_500_000_000.0, trainings=later))
    assert "2014-05-13 16:53 UTC" in first
    assert first != second
    assert without_measured(first) == without_measured(second)


@pytest.mark.parametrize("timestamp", [None, -1, 2**62])
def test_times_that_are_no_dates_are_left_out(inputs: ReportInputs, timestamp: int | None) -> None:
    interactions = inputs.interactions.with_columns(timestamp=pl.lit(timestamp, pl.Int64))
    assert "first and last interaction" in build_report(inputs)
    assert "first and last" not in build_report(replace(inputs, interactions=interactions))
