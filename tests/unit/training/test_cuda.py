"""Training on a CUDA device: the same start as on the CPU, and results that live on the CPU."""

import pytest
import torch

from recmodels.models.base import Batch
from recmodels.models.registry import MODELS, build_model, resolve_config
from recmodels.training import loop
from recmodels.training.trainer import fit

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if not spec.closed_form])
def test_a_model_starts_alike_on_both_devices_and_trains_on_cuda(name: str, checkerboard) -> None:
    data = checkerboard.data()
    starts: list[float] = []
    for device in ("cpu", "cuda"):
        training = {"device": device, "epochs": 3, "restricted_neighbours": 4}
        settings = {"embedding_size": 16, "training": training}
        fields = type(resolve_config(name)).model_fields
        settings |= {"neighbours": 4} if "neighbours" in fields else {}
        settings |= {"edge_drop": 0.0} if "edge_drop" in fields else {}
        model = build_model(name, resolve_config(name, settings), data, 0)
        assert model.device.type == device
        model.eval()
        model.on_epoch_start(0, torch.Generator(device).manual_seed(0))
        users, positives = (torch.tensor(ids[::5], device=device) for ids in data.train_pairs)
        negatives = (positives + 1) % data.n_items if model.uses_negatives else positives[:0]
        # Gradients that are still due would bind the recorded step to the stream of this one.
        with torch.no_grad():
            parts = model.loss(Batch(users, positives, negatives))
        # What is left out is drawn on the device: BM3 and GUME perturb embeddings also outside of training.
        starts.append(0.0 if name in ("bm3", "gume") else sum(part.item() for part in parts.values()))
        result = fit(model, data, seed=0)
        assert {tensor.device.type for tensor in result.ranker.tensors().values()} == {"cpu"}
        assert result.ranker.is_finite()
    assert starts[0] == pytest.approx(starts[1], rel=1e-4)


@pytest.mark.parametrize("name", ["bpr", "lightgcn", "freedom", "lattice", "bm3"])
def test_recorded_steps_do_what_the_steps_do(name: str, checkerboard, monkeypatch) -> None:
    data = checkerboard.data()
    fields = type(resolve_config(name)).model_fields
    settings: dict = {"embedding_size": 16} | ({"neighbours": 4} if "neighbours" in fields else {})
    # Noise is drawn in another order when a graph draws it: without it both trainings are the same to rounding.
    settings |= {field: 0.0 for field in ("dropout",) if field in fields}
    settings["training"] = {"device": "cuda", "epochs": 4, "batch_size": 64, "patience": 10}
    losses = []
    for recorded in (True, False):
        if not recorded:
            monkeypatch.setattr(loop, "records_steps", lambda model: False)
        model = build_model(name, resolve_config(name, settings), data, 0)
        losses.append(fit(model, data, seed=0).history["loss"].to_list())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] != losses[0][0]
