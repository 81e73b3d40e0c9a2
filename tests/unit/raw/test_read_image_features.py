"""Image features are streamed: wanted rows kept, the others filled with the mean and marked."""

from pathlib import Path

import numpy as np
import pytest

from recmodels.errors import InputError
from recmodels.raw.formats.image_features import WIDTH, read_image_features
from recmodels.raw.formats.vectors import embedding_frame


def record(asin: str, vector: np.ndarray) -> bytes:
    return asin.encode() + vector.astype("<f4").tobytes()


def vector_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(WIDTH, dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image_features.b"


def test_wanted_rows_come_in_id_order_and_missing_ones_are_the_mean(path: Path) -> None:
    path.write_bytes(b"".join(record(f"B{i:09d}", vector_of(i)) for i in reversed(range(200))))
    frame = read_image_features(path, ["B000000150", "B999999999", "B000000003"])
    vectors = frame["embedding"].to_numpy()
    assert frame["item_id"].to_list() == [0, 1, 2]
    assert frame["present"].to_list() == [True, False, True]
    np.testing.assert_array_equal(vectors[0], vector_of(150))
    np.testing.assert_array_equal(vectors[2], vector_of(3))
    np.testing.assert_allclose(vectors[1], (vector_of(150) + vector_of(3)) / 2, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_counts_as_missing(path: Path, value: float) -> None:
    broken = vector_of(1)
    broken[17] = value
    path.write_bytes(record("B000000001", broken) + record("B000000002", vector_of(2)))
    frame = read_image_features(path, ["B000000001", "B000000002"])
    assert frame["present"].to_list() == [False, True]
    np.testing.assert_array_equal(frame["embedding"].to_numpy()[0], vector_of(2))


def test_of_several_records_one_is_kept_wherever_it_stands(path: Path) -> None:
    records = [record("B000000001", vector_of(seed)) for seed in range(3)]
    path.write_bytes(b"".join(records))
    frame = read_image_features(path, ["B000000001"])
    path.write_bytes(b"".join(reversed(records)))
    assert read_image_features(path, ["B000000001"]).equals(frame)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (record("B000000001", np.zeros(WIDTH))[:-7], "truncated or of another format"),
        (b'{"asin": "B000000001"}\n', "truncated or of another format"),
        (record("not asin! ", np.zeros(WIDTH)), "a first record of asin"),
        (record("B000000002", np.ones(WIDTH)), "none of their asins"),
    ],
)
def test_a_file_of_another_format_is_an_error(path: Path, content: bytes, found: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=found):
        read_image_features(path, ["B000000001"])


def test_a_table_without_any_present_row_is_left_as_it_is() -> None:
    frame = embedding_frame("user_id", np.zeros((2, 3), np.float32), np.zeros(2, np.bool_))
    assert frame["embedding"].to_list() == [[0, 0, 0], [0, 0, 0]]
