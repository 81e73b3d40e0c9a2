"""Every stored table is held to its declaration: each rule refuses what breaks it, in one line that says so."""

from collections.abc import Callable
from itertools import groupby

import dataframely as dy
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.errors import InputError
from recmodels.evaluation.evaluator import evaluate
from recmodels.evaluation.metrics import METRICS
from recmodels.graphs.knn import knn_table
from recmodels.ranking.ranker import EmbeddingScorer
from recmodels.schemas.results import SYSTEM_METRICS, USER_METRICS
from recmodels.schemas.tables import (
    AUGMENTED,
    INTERACTIONS,
    ITEM_PROFILES,
    ITEMS,
    KNN,
    LEADERBOARD,
    PIPELINE_STATUS,
    RECOMMENDATIONS,
    REJECTS,
    REVIEWS,
    STUDY,
    TABLES,
    TRIES,
    USER_PROFILES,
    USERS,
    column_descriptions,
    embedding_schema,
    problem_of,
    validated_table,
)

N_USERS, N_ITEMS = 3, 4
Change = Callable[[pl.DataFrame], pl.DataFrame]


def rows(schema: pl.Schema, *values: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(values, schema=schema, orient="row")


def vectors(id_column: str, n: int) -> pl.DataFrame:
    matrix = np.random.default_rng(n).standard_normal((n, 5)).astype(np.float32)
    return pl.DataFrame(
        {id_column: range(n), "embedding": matrix, "present": [True] * n}, schema=embedding_schema(id_column, 5)
    )


def measured() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The two tables of a real evaluation, as the assets store them."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(30, 4, generator=generator)
    users = torch.randn(N_USERS, 4, generator=generator)
    train, test = (np.array([0, 1, 2]), np.array([0, 1, 2])), (np.array([0, 2]), np.array([5, 6]))
    result = evaluate(EmbeddingScorer(users, items), train, test)
    run = {
        "model": pl.lit("bpr"),
        "seed": pl.lit(0, pl.Int32),
        "split_digest": pl.lit("ab"),
        "provenance": pl.lit("cd"),
    }
    overall = result.summary.select(
        grouping=pl.lit("all"), group=pl.lit("all"), n_users=pl.lit(2, pl.Int32), metric="metric", k="k", value="value"
    )
    metrics = pl.concat([overall, result.groups])
    return tuple(table.select(**run, **{c: pl.col(c) for c in table.columns}) for table in (metrics, result.per_user))


KNN_ITEMS = knn_table(vectors("item_id", N_ITEMS)["embedding"].to_numpy(), 3)
KNN_USERS = knn_table(vectors("user_id", N_USERS)["embedding"].to_numpy(), 2)
ITEM_ROWS = rows(ITEMS, *[(i, f"A{i}", "", "", "", ["x"], None, "") for i in range(N_ITEMS)])
METRIC_ROWS, USER_METRIC_ROWS = measured()
SOUND: dict[str, pl.DataFrame] = {
    "items": ITEM_ROWS,
    "item_ids": ITEM_ROWS.select("item_id", "asin"),
    "users": rows(USERS, *[(i, f"U{i}") for i in range(N_USERS)]),
    "reviews": rows(REVIEWS, (0, 0, 5.0, 1, "", ""), (0, 2, 4.0, 2, "", ""), (1, 1, 1.0, 3, "", "")),
    "interactions": rows(
        INTERACTIONS,
        (0, 0, 5.0, 1, "train"), (0, 1, None, None, "test"), (1, 1, 1.0, 3, "train"), (1, 2, 1.0, 3, "valid"),
        (2, 0, 1.0, 3, "train"), (2, 3, 1.0, 3, "test"),
    ),
    "rejects": rows(REJECTS, ("a.gz", 3, "no JSON", "{")),
    "item_profiles": rows(ITEM_PROFILES, *[(i, "", "extractive") for i in range(N_ITEMS)]),
    "user_profiles": rows(USER_PROFILES, *[(i, "likes", "extractive") for i in range(N_USERS)]),
    "item_text_embeddings": vectors("item_id", N_ITEMS),
    "item_image_embeddings": vectors("item_id", N_ITEMS),
    "user_text_embeddings": vectors("user_id", N_USERS),
    "item_profile_embeddings": vectors("item_id", N_ITEMS),
    "item_text_knn": KNN_ITEMS,
    "item_profile_knn": KNN_ITEMS,
    "item_image_knn": KNN_ITEMS,
    "user_knn": KNN_USERS,
    "augmented_interactions": rows(AUGMENTED, (0, 3, 0.5), (1, 0, 0.25)),
    "positives": rows(AUGMENTED, (0, 3, 1.0), (1, 0, 1.0)),
    "metrics": METRIC_ROWS,
    "user_metrics": USER_METRIC_ROWS,
    "recommendations": rows(
        RECOMMENDATIONS,
        (0, 1, 3, 2.0, "model"), (0, 2, 2, 1.0, "model"), (1, 1, 0, 1.0, "model"), (2, 1, 1, 4.0, "popularity"),
    ),
    "leaderboard": rows(
        LEADERBOARD, ("bpr", "p", "recall", 20, 1, 0.5, None), ("bpr", "p", "novelty", 20, 2, 9.5, 0.1)
    ),
    "study": rows(
        STUDY,
        ("bpr", "BPR", "recall@20", "graph", 1, 0.5, None, 0.4, 0.1, 9.5),
        ("bpr", "BPR", "ndcg@20", "graph", 2, 0.5, 0.1, None, None, None),
    ),
    "tuning": rows(
        TRIES,
        (0, "current", "complete", "{}", 0, 0.25, 3, 10, 1.5, True, ""),
        (1, "sampled", "pruned", '{"n_layers": 2}', 0, 0.3, 1, 4, 0.5, False, ""),
        (2, "sampled", "failed", '{"n_layers": 9}', 0, None, None, 0, 0.1, False, "out of memory"),
    ),
    "pipeline_status": rows(
        PIPELINE_STATUS,
        ("demo", None, "items", "interactions", "missing", "", None), ("demo", 0, "x", "y", "stale", "", None),
    ),
}  # fmt: skip
MAY_BE_EMPTY = {
    "reviews", "rejects", "augmented_interactions", "item_text_embeddings", "item_image_embeddings", "item_text_knn",
    "item_image_knn", "item_profile_embeddings", "item_profile_knn", "positives",
}  # fmt: skip


def changed(row: int, **values: object) -> Change:
    """Return what sets cells of one row."""

    def change(table: pl.DataFrame) -> pl.DataFrame:
        here = pl.int_range(pl.len()) == row % table.height
        return table.with_columns(
            pl.when(here).then(pl.lit(value, table.schema[name])).otherwise(pl.col(name)).alias(name)
            for name, value in values.items()
        )

    return change


def without(row: int) -> Change:
    return lambda table: table.filter(pl.int_range(pl.len()) != row % table.height)


def swapped(table: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([table[1:2], table[:1], table[2:]])


def doubled(table: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([table[:1], table])


def not_finite(value: float) -> Change:
    def change(table: pl.DataFrame) -> pl.DataFrame:
        matrix = table["embedding"].to_numpy().copy()
        matrix[1, 2] = value
        return table.with_columns(embedding=pl.Series(matrix, dtype=table.schema["embedding"]))

    return change


NAN, INFINITY = float("nan"), float("inf")
BROKEN: list[tuple[str, Change, str]] = [
    ("items", without(1), "item_ids_without_a_gap"),
    ("items", swapped, "item_ids_without_a_gap"),
    ("items", changed(0, price=0.0), "price|min_exclusive"),
    ("item_ids", doubled, "item_ids_without_a_gap"),
    ("users", without(0), "user_ids_without_a_gap"),
    ("users", changed(1, reviewer_id="U0"), "reviewer_id|unique"),
    ("users", changed(1, reviewer_id=""), "reviewer_id|min_length"),
    ("reviews", swapped, "pairs_in_order"),
    ("reviews", doubled, "pairs_in_order"),
    ("reviews", changed(0, rating=NAN), "rating|nan"),
    ("interactions", swapped, "pairs_in_order"),
    ("interactions", doubled, "pairs_in_order"),
    ("interactions", changed(0, user_id=-1), "user_id|min"),
    ("interactions", changed(0, rating=INFINITY), "rating|inf"),
    ("interactions", lambda table: table.filter(pl.col("split") != "train"), "training_rows"),
    ("rejects", changed(0, line=0), "line|min"),
    ("item_profiles", swapped, "item_ids_without_a_gap"),
    ("user_profiles", changed(2, source=""), "source|min_length"),
    ("item_text_embeddings", not_finite(NAN), "embedding|check__finite numbers"),
    ("item_image_embeddings", not_finite(-INFINITY), "embedding|check__finite numbers"),
    ("user_text_embeddings", swapped, "user_ids_without_a_gap"),
    ("item_text_knn", changed(1, rank=2), "ranks_without_a_gap"),
    ("item_text_knn", without(-1), "equal_degrees"),
    ("item_text_knn", changed(2, similarity=0.9999), "best_first"),
    ("item_text_knn", changed(0, similarity=1.5), "similarity|max"),
    ("item_image_knn", changed(2, similarity=NAN), "similarity|nan"),
    ("item_image_knn", lambda table: changed(1, dst=table["dst"][2])(table), "primary_key"),
    ("user_knn", lambda table: table.with_columns(rank=1 - pl.col("rank")).sort("src", "rank"), "itself_first"),
    ("augmented_interactions", changed(1, mass=0.0), "mass|min_exclusive"),
    ("augmented_interactions", swapped, "pairs_in_order"),
    ("metrics", changed(0, value=1.1), "shares_at_most_1"),
    ("metrics", changed(0, value=-0.1), "value|min"),
    ("metrics", changed(0, metric="auc"), f"metric|check__one of {', '.join([*USER_METRICS, *SYSTEM_METRICS])}"),
    ("metrics", doubled, "primary_key"),
    ("metrics", changed(0, k=0), "k|min"),
    ("user_metrics", swapped, "users_in_order"),
    ("user_metrics", doubled, "users_in_order"),
    ("user_metrics", changed(0, n_held_out=0), "n_held_out|min"),
    ("user_metrics", changed(0, **{"ndcg@20": 1.001}), "ndcg@20|max"),
    ("recommendations", changed(0, rank=0), "rank|min"),
    ("recommendations", changed(1, rank=3), "ranks_without_a_gap"),
    ("recommendations", changed(1, score=3.0), "best_first"),
    ("recommendations", changed(1, item_id=3), "primary_key"),
    ("recommendations", changed(1, source="guess"), "source|check__one of model, popularity"),
    ("leaderboard", changed(0, mean=1.5), "shares_at_most_1"),
    ("leaderboard", doubled, "primary_key"),
    ("study", changed(0, source="hearsay"), "source|check__one of graph, device, older"),
    ("study", changed(1, std=-0.1), "std|min"),
    ("study", doubled, "primary_key"),
    ("leaderboard", changed(1, std=-1.0), "std|min"),
    ("tuning", changed(1, number=2), "numbered_from_0"),
    ("tuning", changed(1, origin="guess"), "origin|check__one of current, published, sampled"),
    ("tuning", changed(1, state="gone"), "state|check__one of complete, pruned, failed, unfinished"),
    ("tuning", changed(1, chosen=True), "one_chosen"),
    ("tuning", changed(0, chosen=False), "one_chosen"),
    ("pipeline_status", doubled, "partitions_once"),
]  # fmt: skip

OTHER_TABLE: list[tuple[str, Change, str]] = [
    ("item_ids", without(-1), "item_id to have every item_id of items and no other"),
    ("reviews", changed(-1, user_id=N_USERS), "user_id of the ids in users"),
    ("reviews", changed(-1, item_id=N_ITEMS), "item_id of the ids in item_ids"),
    ("interactions", changed(-1, user_id=N_USERS), "user_id of the ids in users"),
    ("interactions", changed(-1, item_id=N_ITEMS), "item_id of the ids in item_ids"),
    ("item_profiles", without(-1), "item_id to have every item_id of item_ids and no other"),
    ("user_profiles", without(-1), "user_id to have every user_id of users and no other"),
    ("item_text_embeddings", without(-1), "item_id to have every item_id of item_ids and no other"),
    ("item_image_embeddings", without(-1), "item_id to have every item_id of item_ids and no other"),
    ("user_text_embeddings", without(-1), "user_id to have every user_id of users and no other"),
    ("item_text_knn", lambda table: table.filter(pl.col("src") != 2), "src to have every item_id of item_ids"),
    ("item_text_knn", changed(1, dst=N_ITEMS), "dst of the ids in item_ids"),
    ("item_image_knn", lambda table: table.filter(pl.col("src") != 3), "src to have every item_id of item_ids"),
    ("item_image_knn", changed(1, dst=N_ITEMS), "dst of the ids in item_ids"),
    ("user_knn", lambda table: table.filter(pl.col("src") != 0), "src to have every user_id of users and no other"),
    ("user_knn", changed(1, dst=N_USERS), "dst of the ids in users"),
    ("augmented_interactions", changed(-1, user_id=N_USERS), "user_id of the ids in users"),
    ("augmented_interactions", changed(-1, item_id=N_ITEMS), "item_id of the ids in item_ids"),
    ("augmented_interactions", changed(0, item_id=0), "no pair of the splits train of interactions"),
    ("user_metrics", without(0), "user_id to have every user_id of the test rows of interactions and no other"),
    ("user_metrics", changed(0, user_id=1), "user_id to have every user_id of the test rows of interactions"),
    ("recommendations", without(-1), "user_id to have every user_id of interactions with an item left and no other"),
    ("recommendations", changed(-1, user_id=N_USERS), "user_id to have every user_id of interactions with"),
    ("recommendations", changed(-1, item_id=N_ITEMS), "item_id of the ids in item_ids"),
    ("recommendations", changed(0, item_id=0), "no pair of the splits train and valid of interactions"),
    ("recommendations", changed(2, item_id=2), "no pair of the splits train and valid of interactions"),
]

SAME = {
    "augmented_interactions": "positives",
    "item_text_knn": "item_profile_knn",
    "item_text_embeddings": "item_profile_embeddings",
}
"""Tables that are declared as others are."""
OTHER_TABLE += [(SAME[name], change, text) for name, change, text in OTHER_TABLE if name in SAME]


@pytest.mark.parametrize("name", TABLES)
def test_a_sound_table_is_returned_as_it_is(name: str) -> None:
    assert validated_table(name, SOUND[name]) is SOUND[name]
    assert problem_of(name, SOUND[name], SOUND) == ""


@pytest.mark.parametrize("name", TABLES)
def test_no_rows_are_fine_where_something_may_be_absent(name: str) -> None:
    empty = SOUND[name].clear()
    if name in MAY_BE_EMPTY:
        assert validated_table(name, empty) is empty
        assert problem_of(name, empty, SOUND) == ""
    else:
        with pytest.raises(InputError, match=f"table {name}: expected rows, found none"):
            validated_table(name, empty)


@pytest.mark.parametrize(("name", "change", "rule"), BROKEN, ids=[f"{name}-{rule}" for name, _, rule in BROKEN])
def test_a_broken_rule_is_refused_in_one_line_with_an_example(name: str, change: Change, rule: str) -> None:
    broken = change(SOUND[name])
    assert not broken.equals(SOUND[name])
    _, failure = TABLES[name].schema.filter(broken)
    n_rows = failure.counts()[rule]
    with pytest.raises(InputError) as refused:
        validated_table(name, broken)
    text = str(refused.value)
    assert problem_of(name, broken, SOUND) == text
    assert "\n" not in text
    assert text.startswith(f"table {name}: expected ")
    assert f"among {broken.height:,} rows, the first with {broken.columns[0]} " in text
    if len(failure.counts()) == 1:
        assert f"found {n_rows:,} that differ" in text


def test_every_declared_rule_is_broken_once_above() -> None:
    declared = {
        rule
        for table in TABLES.values()
        for rule in table.schema._validation_rules(with_cast=False)
        if "|" not in rule or rule.split("|")[1] not in {"nullability", "inner_nullability", "inf", "min_length"}
    }
    broken = {rule for _, _, rule in BROKEN}
    kinds = {rule.split("|")[-1] for rule in broken}
    assert {rule for rule in declared if "|" not in rule} <= broken
    assert {rule.split("|")[-1] for rule in declared} <= kinds
    references = {(name, reference.expected) for name, table in TABLES.items() for reference in table.references}
    shown = {(name, expected) for name, expected in references if any(
        name == broken_name and expected.startswith(text.removesuffix(" and no other"))
        for broken_name, _, text in OTHER_TABLE
    )}  # fmt: skip
    assert references == shown


@pytest.mark.parametrize(("name", "change", "expected"), OTHER_TABLE)
def test_a_table_that_disagrees_with_another_is_told_in_one_line(name: str, change: Change, expected: str) -> None:
    broken = change(SOUND[name])
    assert validated_table(name, broken) is broken
    text = problem_of(name, broken, SOUND)
    assert text.startswith(f"table {name}: expected {expected}")
    assert "that differ among" in text
    assert "materialise it again" in text
    assert "\n" not in text


@pytest.mark.parametrize("name", TABLES)
def test_other_columns_or_types_are_refused(name: str) -> None:
    sound = SOUND[name]
    for broken in (
        sound.drop(sound.columns[-1]),
        sound.with_columns(more=1),
        sound.select(reversed(sound.columns)),
        sound.with_columns(pl.lit(None, pl.Binary).alias(sound.columns[0])),
    ):
        with pytest.raises(InputError, match=r"^table \w+: expected columns .*, found .*\. Correct") as refused:
            validated_table(name, broken)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", TABLES)
def test_nulls_are_refused_where_none_may_be(name: str) -> None:
    for column, declared in TABLES[name].schema.columns().items():
        broken = changed(0, **{column: None})(SOUND[name])
        if declared.nullable:
            validated_table(name, broken)
        else:
            with pytest.raises(InputError):
                validated_table(name, broken)


def test_an_undeclared_table_is_refused() -> None:
    with pytest.raises(InputError, match=r"table clicks: expected one of items, .* Declare it in"):
        validated_table("clicks", SOUND["items"])


def test_a_list_of_names_in_the_schemas_is_the_one_of_the_metrics() -> None:
    assert list(METRICS) == list(USER_METRICS)


edges = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9])))


@given(edges)
def test_the_rules_of_neighbours_agree_with_loops(table: list[tuple[int, int, int, float]]) -> None:
    groups = [(src, list(rows)) for src, rows in groupby(table, key=lambda row: row[0])]
    in_order = [src for src, _ in groups] == sorted({src for src, _ in groups})
    numbered = all([row[2] for row in rows] == list(range(len(rows))) for _, rows in groups)
    equal = len({len(rows) for _, rows in groups}) <= 1
    falling = all(
        rows[i][3] <= rows[i - 1][3] or rows[i][0] == rows[i][1] for _, rows in groups for i in range(1, len(rows))
    )
    distinct = len({row[:2] for row in table}) == len(table)
    schema: type[dy.Schema] = TABLES["item_text_knn"].schema
    frame = pl.DataFrame(table, schema=KNN, orient="row")
    assert schema.is_valid(frame) == (in_order and numbered and equal and falling and distinct)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2))))
def test_the_rules_of_pairs_agree_with_sorting(pairs: list[tuple[int, int]]) -> None:
    frame = pl.DataFrame([(*pair, 1.0) for pair in pairs], schema=AUGMENTED, orient="row")
    assert TABLES["augmented_interactions"].schema.is_valid(frame) == (pairs == sorted(set(pairs)))


def test_who_has_had_every_item_needs_no_recommendations() -> None:
    had = [(2, item, 5.0, 1, "valid" if item == 0 else "train") for item in range(N_ITEMS)]
    others = SOUND["interactions"].filter(pl.col("user_id") != 2)
    tables = SOUND | {"interactions": pl.concat([others, rows(INTERACTIONS, *had)])}
    assert problem_of("recommendations", SOUND["recommendations"].filter(pl.col("user_id") != 2), tables) == ""


def test_every_column_says_what_it_holds() -> None:
    assert [(name, c) for name in TABLES for c, text in column_descriptions(name).items() if not text] == []
    assert column_descriptions("of_another_package") == {}
