"""What became of the rows, and what is refused before anything is trained."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recmodels.catalogue.entries import DatasetEntry, Source, SplitStrategy
from recmodels.data.funnel import Funnel
from recmodels.data.prepare import Prepared, prepare_tables
from recmodels.data.raw_files import named_folder, prepare_raw_files
from recmodels.errors import InputError
from recmodels.raw.formats.base import Role
from recmodels.reporting.tables import funnel_table

Pair = tuple[int, int]


def prepare(
    folder: Path, pairs: list[Pair], *, k_core: int = 1, split: SplitStrategy = "random", file: str = "reviews.json"
) -> Prepared:
    """Write each (user, item) as a review of its own time and prepare the data set."""
    lines = [
        json.dumps({"reviewerID": f"U{user}", "asin": f"B{item:09}", "overall": 5.0, "unixReviewTime": 10**9 + time})
        for time, (user, item) in enumerate(pairs)
    ]
    return prepare_text(folder, "".join(f"{line}\n" for line in lines), k_core=k_core, split=split, file=file)


def prepare_text(
    folder: Path, text: str, *, k_core: int = 1, split: SplitStrategy = "random", file: str = "reviews.json"
) -> Prepared:
    (folder / file).write_text(text)
    source = Source(files={Role.REVIEWS: file}, k_core=k_core, split=split)
    entry = DatasetEntry(key="small", title="Small", domain="things", sources={"amazon2014": source})
    return prepare_tables(prepare_raw_files(entry, folder), entry)


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as told:
        prepare(*arguments, **options)
    text = str(told.value)
    assert "\n" not in text
    return text


GRID = [(user, item) for user in range(8) for item in range(user % 2, 10, 2)]


def test_every_row_is_counted_in_one_step(tmp_path: Path) -> None:
    found = prepare(tmp_path, [*GRID, (0, 0), (0, 0), (99, 0), (99, 2), (0, 77)], k_core=3)
    funnel = found.funnel
    assert funnel.steps == {
        "read": 45, "rejected": 0, "repeated pairs": 2, "below the k-core": 3, "kept": 40,
        "train": 24, "valid": 8, "test": 8,
    }  # fmt: skip
    assert (funnel.users_below_core, funnel.items_below_core) == (1, 1)
    assert funnel.text == (
        "45 rows read: 0 rejected, 2 repeated, 3 below the 3-core; 40 kept: 24 train, 8 valid, 8 test"
    )
    assert found.interactions.height == funnel.kept
    assert funnel_table(funnel.steps).row(3) == ("below the k-core", "3", "6.7%")


@settings(deadline=None, max_examples=25)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=80),
    n_broken=st.integers(0, 3),
    k_core=st.integers(1, 3),
)
def test_the_steps_add_up(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair], n_broken: int, k_core: int
) -> None:
    folder = tmp_path_factory.mktemp("funnel")
    lines = [
        json.dumps({"reviewerID": f"U{u}", "asin": f"B{i:09}", "overall": 5.0, "unixReviewTime": 10**9 + t})
        for t, (u, i) in enumerate(pairs)
    ]
    try:
        funnel = prepare_text(folder, "\n".join([*lines, *["{broken"] * n_broken]), k_core=k_core).funnel
    except InputError:
        return
    steps = funnel.steps
    assert steps["read"] == len(pairs) + n_broken
    assert steps["rejected"] == n_broken
    assert steps["repeated pairs"] == len(pairs) - len(set(pairs))
    assert steps["read"] == sum(steps[name] for name in ("rejected", "repeated pairs", "below the k-core", "kept"))
    assert steps["kept"] == steps["train"] + steps["valid"] + steps["test"]


def test_one_item_is_refused_with_what_the_k_core_took(tmp_path: Path) -> None:
    told = refusal(tmp_path, [(user, 0) for user in range(6)] + [(0, 1), (1, 2)], k_core=1, split="temporal")
    assert "data set small: expected rows held out" in told
    told = refusal(tmp_path, [(user, 0) for user in range(6)], split="temporal")
    assert "expected at least 2 items to rank, found 1 (6 rows read: 0 rejected, 0 repeated; 6 kept" in told
    assert told.endswith("Use raw files with more rows.")


def test_a_core_of_one_item_names_the_items_there_were(tmp_path: Path) -> None:
    # No k-core above 1 has a single item: with one item every user has one row.
    funnel = Funnel("x_5.json", 5, 9, 0, 0, 3, 6, 0, 30)
    assert funnel.advice == (
        "x_5.json is a 5-core already by its name, which counts repeated rows: set k_core = 1 in the catalogue entry."
    )
    told = refusal(tmp_path, GRID, k_core=9, file="reviews_Fashion_5.json")
    assert "at least 9 interactions, found none among 40 interactions (40 rows read: 0 rejected, 0 repeated, 40" in told
    assert told.endswith("Lower k_core in the catalogue entry.")


def test_nothing_left_of_a_released_core_names_the_cure(tmp_path: Path) -> None:
    told = refusal(tmp_path, [(u, i) for u in range(9) for i in range(3)], k_core=5, file="reviews_Fashion_5.json")
    assert "below the 5-core; 0 kept" in told
    assert told.endswith(
        "reviews_Fashion_5.json is a 5-core already by its name, which counts repeated rows: set k_core = 1 in the "
        "catalogue entry."
    )


@pytest.mark.parametrize("split", ["random", "temporal", "leave_last_out"])
def test_no_held_out_rows_are_refused(tmp_path: Path, split: SplitStrategy) -> None:
    told = refusal(tmp_path, [(user, user % 7) for user in range(200)], split=split)
    assert "expected rows held out for validation and test, found 0 and 0 (200 rows read" in told
    assert "Of a user with fewer than 3 rows none is held out." in told


def test_where_nobody_lacks_an_item_there_is_nothing_to_learn(tmp_path: Path) -> None:
    told = refusal(tmp_path, [(0, item) for item in range(12)])
    assert "expected a user who lacks one of the items that occur in training, found none, as every user" in told
    prepare(tmp_path, [*((0, item) for item in range(12)), *((1, item) for item in range(6, 18))])


@pytest.mark.parametrize(
    ("file", "core"),
    [
        ("reviews_Baby_5.json.gz", 5), ("Gift_Cards_5.json.gz", 5), ("Shop_10.jsonl", 10),
        ("Gift_Cards.jsonl.gz", None), ("reviews_2018.json.gz", None), ("baby.inter.gz", None), ("all_1.json", None),
    ],
)  # fmt: skip
def test_a_file_that_is_a_core_already_is_known_by_its_name(file: str, core: int | None) -> None:
    assert Funnel(file, 5, 10, 0, 0, 1, 9).core_by_name == core


def test_only_what_a_named_core_loses_below_its_own_k_is_an_accident() -> None:
    lost = Funnel("x_5.json", 5, 10, 0, 0, 4, 6, 2, 1)
    assert lost.cut_core == {
        "file": "x_5.json", "core_by_name": 5, "k_core": 5, "pairs": 10, "pairs_lost": 4, "users_lost": 2,
        "items_lost": 1,
    }  # fmt: skip
    assert Funnel("x_5.json", 10, 10, 0, 0, 4, 6).cut_core == {}
    assert Funnel("x_5.json", 5, 10, 0, 0, 0, 10).cut_core == {}
    assert Funnel("x.json", 5, 10, 0, 0, 4, 6).cut_core == {}


def test_a_folder_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder of the raw files: expected one that exists, found .*nope/x, which"):
        named_folder(tmp_path / "nope" / "x")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file"):
        named_folder(tmp_path / "file")
    assert named_folder(tmp_path) == tmp_path.resolve()
