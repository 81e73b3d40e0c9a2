"""Recording steps, without a CUDA device: its graph is replaced by one that computes anew what it recorded."""

import contextlib

import pytest
import torch

from recmodels.models.base import Batch
from recmodels.training import recorded


class Graph:
    """Replays by calling the step again and putting its result where the recorded one was."""

    made: list["Graph"]
    fails = False

    def __init__(self) -> None:
        self.made.append(self)
        self.replays = 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generator = generator

    def pool(self) -> object:
        return self

    def capture_begin(self, *pool: object) -> None:
        self.pools = pool

    def capture_end(self) -> None:
        if self.fails:
            raise RuntimeError("operation failed due to a previous error during capture")

    def replay(self) -> None:
        self.replays += 1


class Stream:
    def __init__(self, device: object = None) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


@pytest.fixture
def graphs(monkeypatch) -> list[Graph]:
    Graph.made, Graph.fails = [], False
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return Graph.made


def batches() -> list[Batch]:
    ids = torch.arange(11)
    return [Batch(part, part + 100, part + 200) for part in ids.split(3)]


def test_every_batch_reaches_a_step_and_only_full_ones_are_replayed(graphs) -> None:
    stepped: list[int] = []
    recorder = recorded.StepRecorder(lambda batch: stepped.append(len(batch.users)) or batch.users.sum(), "cuda")
    for epoch in range(2):
        stepped.clear()
        take = recorder.new_epoch(torch.Generator())
        for batch in batches():
            take(batch)
        # The first as it is, the second recorded, the shorter last one as it is; the two full ones are replayed.
        assert stepped == [3, 3, 2]
        assert graphs[epoch].replays == 2
    # The second epoch's graph has the memory of the first one's.
    assert [len(graph.pools) for graph in graphs] == [0, 1]
    assert graphs[1].pools[0] is graphs[0]


def test_the_inputs_of_a_replay_are_those_of_its_batch(graphs, monkeypatch) -> None:
    seen: list[Batch] = []
    recorder = recorded.StepRecorder(lambda batch: seen.append(batch) or batch.users.sum(), "cuda")
    replayed: list[list[int]] = []
    monkeypatch.setattr(Graph, "replay", lambda graph: replayed.append(seen[1].positives.tolist()))
    take = recorder.new_epoch(torch.Generator())
    for batch in batches():
        take(batch)
    assert replayed == [[103, 104, 105], [106, 107, 108]]


def test_a_step_that_cannot_be_recorded_runs_as_it_is_and_says_so_once(graphs) -> None:
    Graph.fails = True
    seen: list[int] = []
    recorder = recorded.StepRecorder(lambda batch: seen.append(int(batch.users[0])) or batch.users.sum(), "cuda")
    takes = [recorder.new_epoch(torch.Generator()) for _ in range(2)]
    with pytest.warns(UserWarning, match="recording one failed") as caught:
        losses = [int(take(batch)) for take in takes for batch in batches()]
    assert losses == 2 * [int(batch.users.sum()) for batch in batches()]
    assert len(caught) == 1
