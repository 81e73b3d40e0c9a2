"""What is known of users and items beside any model, by name."""

import numpy as np
import polars as pl
import pytest
from explored import ATTACK, COLD, PICTURE, tables

from recmodels.errors import InputError
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, user_task
from recmodels.serving.data_set import DataSet, Written
from recmodels.serving.pictures import loadable_picture

TABLES = tables()


@pytest.fixture(scope="module")
def known() -> DataSet:
    return DataSet(
        *(TABLES[name] for name in ("interactions", "users", "items", "reviews")),
        item_profiles=Written(TABLES["item_profiles"], ProfileConfig()),
        user_profiles=Written(TABLES["user_profiles"], ProfileConfig()),
        graphs={"text": TABLES["item_text_knn"], "image": TABLES["item_image_knn"]},
    )


def _asins(user: int, *splits: str) -> set[str]:
    rows = TABLES["interactions"].filter((pl.col("user_id") == user) & pl.col("split").is_in(splits))
    return {f"B{item}" for item in rows["item_id"]}


def test_a_search_finds_parts_of_ids_whatever_the_case_and_beginnings_first(known: DataSet) -> None:
    assert [user["user"] for user in known.find_users("1")] == ["R1", "R10", "R11"]
    assert [user["user"] for user in known.find_users("D")] == [COLD]
    assert [user["user"] for user in known.find_users("r", 2)] == ["R0", "R1"]
    assert known.find_users("R.") == []  # a text, no pattern


def test_groups_are_by_training_rows_and_a_random_user_is_one_of_the_group(known: DataSet) -> None:
    assert known.groups() == {"0-4": 1, "5-9": 12, "10-19": 0, "20+": 0}
    assert [user["user"] for user in known.find_users(group="0-4")] == [COLD]
    drawn = {(known.any_user(np.random.default_rng(seed), group="5-9") or {})["user"] for seed in range(100)}
    assert drawn == {f"R{user}" for user in range(12)}
    assert known.any_user(np.random.default_rng(0), group="20+") is None
    with pytest.raises(InputError, match="group: expected one of 0-4, 5-9, 10-19, 20"):
        known.find_users(group="many")


def test_a_user_has_a_history_the_latest_first_and_held_out_items_apart(known: DataSet) -> None:
    found = known.user("R3")
    times = [item["timestamp"] for item in found["history"]]
    assert {item["asin"] for item in found["history"]} == _asins(3, "train", "valid")
    assert times == sorted(times, reverse=True)
    assert {item["asin"] for item in found["history"] if item["split"] == "valid"} == _asins(3, "valid")
    assert {item["asin"] for item in found["held_out"]} == _asins(3, "test") == known.held_out("R3")
    assert (found["n_train"], found["group"]) == (6, "5-9")
    assert (known.user(COLD)["history"], known.held_out(COLD), known.held_out("nobody")) == ([], {"B0"}, frozenset())


def test_titles_stay_as_they_are_and_an_absent_one_is_told_by_the_description(known: DataSet) -> None:
    assert known.item("B0")["title"] == ATTACK
    assert known.item("B3")["title"] == "Description of 3."
    assert known.shown(["B5", "gone"]) == [
        {"asin": "B5", "title": "item 5", "picture": None},
        {"asin": "gone", "title": "gone", "picture": None},
    ]


@pytest.mark.parametrize("user", [0, 4, 11])
def test_a_profile_stands_beside_what_the_whole_tables_make_it_from(known: DataSet, user: int) -> None:
    parts = (TABLES["items"], TABLES["item_profiles"], TABLES["reviews"], TABLES["interactions"])
    task = user_task(*parts, n_users=13, domain="", config=ProfileConfig())
    found = known.user(f"R{user}")["profile"]
    assert found is not None
    assert (found["text"], found["written_by"]) == (f"likes {user}", "extractive")
    expected = [entry.title or entry.profile for entry in task.inputs(user).history]
    assert len(found["made_from"]) == len(expected) == 6
    assert all(line.startswith(title[:200]) for line, title in zip(found["made_from"], expected, strict=True))
    reviewed = [line for line in found["made_from"] if "Batteries" in line]
    assert len(reviewed) == (user == 0)


def test_an_item_profile_never_shows_the_review_of_a_held_out_row() -> None:
    held_out = TABLES["interactions"].filter(pl.col("split") == "test").row(0, named=True)
    review = pl.DataFrame(
        [(held_out["user_id"], held_out["item_id"], 4.0, 1, "secret", "told by a test row")],
        schema=TABLES["reviews"].schema,
        orient="row",
    )
    config = ProfileConfig(item_reviews="always")
    written = Written(TABLES["item_profiles"], config)
    parts = (TABLES["interactions"], TABLES["users"], TABLES["items"], review)
    asin = f"B{held_out['item_id']}"
    found = DataSet(*parts, item_profiles=written).item(asin)["profile"]
    leaking = DataSet(
        *parts, item_profiles=Written(TABLES["item_profiles"], config.model_copy(update={"include_held_out": True}))
    )
    shown = leaking.item(asin)["profile"]
    assert found is not None
    assert shown is not None
    assert "secret" not in str(found["made_from"])
    assert "secret" in str(shown["made_from"])
    task = item_task(TABLES["items"], review, TABLES["interactions"], domain="", config=config)
    assert len(found["made_from"]) == 2 == len([task.inputs(0).title, task.inputs(0).description])


def test_edges_are_those_of_the_graph_in_either_direction_with_the_best_similarity(known: DataSet) -> None:
    asked, own = ["B2", "B5"], ["B0", "B4", "B7", "nothing"]
    expected: dict[tuple[str, str], float] = {}
    for src, dst, _, similarity in TABLES["item_text_knn"].iter_rows():
        for item, because in ((f"B{src}", f"B{dst}"), (f"B{dst}", f"B{src}")):
            if item in asked and because in own and item != because:
                expected[item, because] = max(similarity, expected.get((item, because), 0))
    found = known.edges(own, asked)
    assert set(found["graph"]) == {"text"}
    assert {(item, because): weight for item, _, because, weight in found.iter_rows()} == expected
    assert len(expected) >= 3


def test_names_that_nobody_has_are_told_with_the_nearest(known: DataSet) -> None:
    with pytest.raises(InputError, match=r"user: expected a user of the data set, found 'R1l'\. Did you mean R1"):
        known.user("R1l")
    with pytest.raises(InputError, match=r"item: expected an asin of the data set, found 'B91'\. Did you mean B"):
        known.item("B91")


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)", "data:image/png;base64,AA", "//a.example/1.jpg", "file:///etc/passwd", "", "no address",
        "http://127.0.0.1/1.jpg", "http://127.1/1.jpg", "http://0x7f.1/1.jpg", "http://[::1]/1.jpg", "http://router/1.jpg",
        "http://printer.local/1.jpg", "http://localhost./1.jpg", "https://me:secret@a.example/1.jpg",
        "http://a.example:6379/1.jpg", "http://a.example:99999/1.jpg", "http://2130706433/1.jpg",
    ],
)  # fmt: skip
def test_pictures_are_loaded_from_public_names_alone(address: str) -> None:
    assert loadable_picture(PICTURE) == PICTURE
    assert loadable_picture(address) is None
