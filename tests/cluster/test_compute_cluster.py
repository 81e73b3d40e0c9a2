"""Neighbours, embeddings and groups on a cluster come out as in one process, also where a node dies meanwhile."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from tiny_bert import write_tiny_bert

from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.embeddings.config import EncoderConfig
from recmodels.embeddings.encode import encode_texts
from recmodels.errors import InputError
from recmodels.graphs import knn
from recmodels.graphs.knn import knn_table

pytestmark = pytest.mark.slow

Kill = Callable[[], Thread]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Callable[[Compute], bytes]]]:
    """What is computed, and its bytes: neighbours with ties, duplicates and rows of zeros; vectors of 400 texts."""
    folder = tmp_path_factory.mktemp("encoder")
    config = EncoderConfig(model=str(write_tiny_bert(folder)), device="cpu", batch_size=1)
    texts = [f"Item {row}: a kettle of copper" + " and tin" * (row % 9) for row in range(400)]
    vectors = np.random.default_rng(0).integers(-2, 3, (5000, 128)).astype(np.float32)
    vectors[4000:] = vectors[:1000]
    vectors[::500] = 0

    def neighbours(compute: Compute) -> bytes:
        return knn_table(vectors, 10, compute=compute).serialize()

    def embeddings(compute: Compute) -> bytes:
        store = tmp_path_factory.mktemp("store") / "vectors.sqlite"
        return encode_texts(texts, config, store, compute=compute)[0].tobytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "_BLOCK_PRODUCTS", 200 * len(vectors))
        yield {"neighbours": neighbours, "embeddings": embeddings}


@pytest.mark.parametrize("stage", ["neighbours", "embeddings"])
def test_a_stage_has_the_same_bytes_calm_and_with_a_node_that_dies(
    stage: str, stages: dict[str, Callable[[Compute], bytes]], cluster: Any, kill_one_node_after: Kill
) -> None:
    local = stages[stage](LOCAL)
    calm = cluster.undisturbed()
    assert stages[stage](calm) == local
    assert calm.record()["repeated"] == 0
    assert int(calm.record()["blocks"]) >= 10
    disturbed = cluster.compute()
    kill_one_node_after()
    assert stages[stage](disturbed) == local
    assert int(disturbed.record()["repeated"]) >= 1


class _Sums:
    def __init__(self, shared: np.ndarray, part: int) -> None:
        self.matrix = np.outer(shared, shared + part)

    def step(self, own: float, vector: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return np.tanh(self.matrix @ vector + own)


def _iterated(compute: Compute, rounds: int) -> np.ndarray:
    vector = np.linspace(-1, 1, 50)
    with compute.group(_Sums, range(5), shared=np.linspace(0, 0.2, 50)) as group:
        for _ in range(rounds):
            vector = np.sum(group.call("step", vector, each=[0.1 * part for part in range(5)]), axis=0)
    return vector


def test_a_group_of_more_parts_than_processors_outlives_a_node(cluster: Any, kill_one_node_after: Kill) -> None:
    compute = cluster.compute()
    kill_one_node_after()
    np.testing.assert_array_equal(_iterated(compute, 20), _iterated(LOCAL, 20))
    assert int(compute.record()["repeated"]) >= 1


def _wrong(shared: None, block: int) -> None:
    raise InputError(f"block {block}", expected="nothing", found="something", action="Mend it.")


def test_an_error_in_a_task_comes_as_itself(cluster: Any) -> None:
    with pytest.raises(InputError) as caught:
        next(cluster.compute().map(_wrong, [7]))
    assert type(caught.value) is InputError
    assert str(caught.value) == "block 7: expected nothing, found something. Mend it."


def test_without_naming_it_nothing_of_ray_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, pipelines.definitions; from recmodels.graphs.knn import knn_table;"
        "print(knn_table(np.eye(5), 3).height, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["15", "False"]
