"""
What a CUDA device gives, measured in one visit: equality with the CPU, kernels, epochs, transport, real trainings.

    python benchmarks/published.py FOLDER                        where the raw files are: what is carried along
    python benchmarks/gpu.py --folder FOLDER --minutes 8         on the machine with the device
    python benchmarks/gpu.py --device cpu --quick                the same code, to see that it runs

Without a folder the pairs are generated and nothing real is trained. Dagster and FAISS are not needed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks import textbook_training as textbook
from benchmarks.gpu_trainings import train_rows
from benchmarks.harness import Report, random_neighbours, time_in_turns
from benchmarks.training import problem
from recmodels.graphs.bipartite import BipartiteGraph
from recmodels.graphs.knn import knn_table
from recmodels.graphs.propagation import KERNELS, propagate
from recmodels.models.base import Batch, Model
from recmodels.models.inputs import TrainingData
from recmodels.models.registry import MODELS, build_model, resolve_config
from recmodels.training import loop
from recmodels.training.trainer import fit
from recmodels.transport.augment import augment
from recmodels.transport.config import TransportConfig

STEPWISE = [name for name, spec in MODELS.items() if not spec.closed_form]
AS_THE_TEXTBOOK = {"restricted_negatives": False, "augmentation": False}
TESTS = [f"tests/unit/{path}" for path in ("training", "graphs/test_propagation.py", "transport/test_on_device.py")]


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="what is measured")
    parser.add_argument("--folder", type=Path, help="what published.py wrote")
    parser.add_argument(
        "--parts", default="tests,equality,kernels,epochs,transport", help="what to measure, in this order"
    )
    parser.add_argument("--sets", default="baby,sports,clothing", help="data sets whose epochs are timed")
    parser.add_argument("--models", default=",".join(STEPWISE), help="models whose epochs are timed")
    parser.add_argument(
        "--rows", default="", help="rows to train as set/row/seed, in order, joined by commas; or @FILE"
    )
    parser.add_argument("--results", type=Path, help="folder of the results of trainings")
    parser.add_argument("--workers", type=int, default=5, help="trainings at once")
    parser.add_argument("--minutes", type=float, default=8, help="when to start nothing more")
    parser.add_argument("--grace", type=float, default=40, help="seconds that trainings may go on after that")
    parser.add_argument("--eager", action="store_true", help="train without recording steps as CUDA graphs")
    parser.add_argument("--quick", action="store_true", help="small problems and few rounds, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to this file")
    return parser.parse_args()


def synchronised(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str, rounds: int) -> float:
    """Median seconds of a function, the device's work included."""

    def completed() -> None:
        work()
        synchronised(device)

    return time_in_turns({"work": completed}, rounds=rounds)["work"]


def run_tests(report: Report) -> None:
    """The tests that need a device, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - this interpreter, these paths
    print(done.stdout[-6000:], done.stderr[-1000:])
    report.figures["gpu_tests_failed"] = float(done.returncode != 0)


def settings_of(name: str, device: str, **training: Any) -> dict[str, Any]:
    own = AS_THE_TEXTBOOK if name == "blast" else {}
    return {"training": {"device": device, **own, **training}}


def without_noise(name: str) -> dict[str, Any]:
    """Settings that leave nothing to draw in a step."""
    fields = type(resolve_config(name)).model_fields
    return {field: 0.0 for field in ("edge_drop", "dropout", "edge_dropout", "noise") if field in fields}


def measure_equality(report: Report, data: TrainingData, device: str) -> None:
    """Embeddings, loss and gradients against the CPU: relative distance of all of them together."""
    for name in STEPWISE:
        outputs: list[dict[str, torch.Tensor]] = []
        for where in ("cpu", device):
            model = build_model(name, resolve_config(name, settings_of(name, where) | without_noise(name)), data, 0)
            assert isinstance(model, Model)
            model.eval()
            model.on_epoch_start(0, torch.Generator(where).manual_seed(0))
            users, positives = (torch.tensor(ids[::7][:512], device=where) for ids in data.train_pairs)
            negatives = (positives + 1) % data.n_items if model.uses_negatives else positives[:0]
            loss = torch.stack(list(model.loss(Batch(users, positives, negatives)).values())).sum()
            loss.backward()
            found = {"loss": loss.detach()}
            found |= {f"gradients of {key}": p.grad for key, p in model.named_parameters() if p.grad is not None}
            found |= dict(zip(("users", "items"), (x.detach() for x in model.embeddings()), strict=True))
            outputs.append({key: tensor.double().cpu() for key, tensor in found.items()})
        for part in ("loss", "users", "items", "gradients"):
            names = [key for key in outputs[0] if key.split(" ")[0] == part]
            reference, other = (torch.cat([each[key].reshape(-1) for key in names]) for each in outputs)
            distance = float((reference - other).norm() / reference.norm().clamp_min(1e-12))
            report.add(f"distance_{name}_{part}", distance, baseline="the CPU in float32")


def measure_kernels(report: Report, data: TrainingData, name: str, device: str, rounds: int) -> None:
    """One product with the adjacency of all training pairs, 64 wide, by each kernel; the step's in bfloat16 too."""
    graph = BipartiteGraph(*data.train_pairs, data.n_users, data.n_items, device=device).adjacency()
    x = torch.randn(data.n_users + data.n_items, 64, device=device)
    exact = propagate(graph.to(torch.float64), x.double())
    for kernel, multiply in KERNELS.items():
        for dtype in (torch.float32, torch.bfloat16):
            operands = graph.matrix.to(dtype), x.to(dtype), None
            try:
                distance = float((multiply(*operands).double() - exact).norm() / exact.norm())
                seconds = seconds_of(
                    lambda operands=operands, multiply=multiply: [multiply(*operands) for _ in range(20)],
                    device,
                    rounds,
                )
            except RuntimeError as error:
                report.skip(f"product_{name}_{kernel}_{dtype}", str(error).splitlines()[0][:60])
                continue
            label = f"product_{name}_{kernel}_{str(dtype).split('.')[1]}"
            report.add(f"{label}_us", seconds / 20 * 1e6, unit="us", baseline=f"distance {distance:.1e}")


def timed_fit(
    name: str, data: TrainingData, device: str, n_epochs: int, dataset: str | None = None
) -> dict[str, float]:
    """Median seconds of an epoch after the first, of its validation, and the most memory of the device."""
    config = resolve_config(name, settings_of(name, device, epochs=n_epochs), dataset=dataset)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = build_model(name, config, data, 0)
    history = fit(model, data, seed=0).history[1:]
    n_steps = -(-len(data.train_users) // model.batch_size)
    training_seconds = float(history["training_seconds"].median())
    return {
        "epoch": training_seconds,
        "step_ms": 1e3 * training_seconds / n_steps,
        "validation": float((history["seconds"] - history["training_seconds"]).median()),
        "peak_mb": torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else float("nan"),
    }


def measure_epochs(report: Report, size: str, names: list[str], device: str, *, quick: bool) -> None:
    data, _ = problem("quick" if quick else size)
    for name in names:
        try:
            found = timed_fit(name, data, device, 3 if quick or name in ("bridge", "lattice") else 5)
        except Exception as error:
            # One model that fails must not cost the figures of the others.
            report.skip(f"epoch_{size}_{name}", f"{type(error).__name__}: {error}"[:200])
            continue
        for what, value in found.items():
            if value == value:
                report.figures[f"{what}_{size}_{name}"] = value
        shown = f"step {found['step_ms']:.2f} ms, validation {found['validation']:.3f} s, {found['peak_mb']:,.0f} MB"
        report.add(f"epoch_{size}_{name}", found["epoch"], unit="s", baseline=shown)
        if name in textbook.MODELS and (quick or size == "baby"):
            plain = textbook.MODELS[name](data).on(device)
            optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
            rng = textbook.random.Random(0)
            seconds = seconds_of(lambda plain=plain, o=optimiser, r=rng: textbook.train_epoch(plain, o, r), device, 1)
            report.add(
                f"textbook_{size}_{name}",
                seconds,
                unit="s",
                baseline=f"{seconds / found['epoch']:.1f} times ours",
                goal=">= 5x",
            )
            if device == "cuda":
                records = loop.records_steps
                loop.records_steps = lambda model: False
                try:
                    eager = timed_fit(name, data, device, 5)["epoch"]
                finally:
                    loop.records_steps = records
                report.add(f"eager_{size}_{name}", eager, unit="s", baseline="steps launched kernel by kernel")


def measure_width(report: Report, device: str) -> None:
    """RecGOAT at the width published for Baby."""
    found = timed_fit("recgoat", problem("baby")[0], device, 2, dataset="baby")
    report.add("epoch_baby_recgoat_800", found["epoch"], unit="s")
    report.add("peak_mb_baby_recgoat_800", found["peak_mb"], unit="MB", goal="<= 8,000 MB")


def measure_transport(report: Report, size: str, data: TrainingData, device: str) -> None:
    """Sinkhorn with the matrix on the device against the CPU, and exact neighbours of 384-wide vectors."""
    train = pl.DataFrame({"user_id": data.train_users, "item_id": data.train_items})
    graphs = {"text": random_neighbours(data.n_items, 0)}
    added: dict[str, set[tuple[int, int]]] = {}
    for backend in ("structured", "cuda") if device == "cuda" else ("structured",):
        started = time.perf_counter()
        found = augment(train, graphs, TransportConfig(backend=backend), n_users=data.n_users, n_items=data.n_items)
        report.add(f"transport_{size}_{backend}", time.perf_counter() - started, unit="s")
        added[backend] = set(found.added.select("user_id", "item_id").rows())
    if len(added) == 2:
        same = len(added["cuda"] & added["structured"]) / max(1, len(added["structured"]))
        report.add(f"transport_{size}_same_pairs", same, baseline="share of the CPU's pairs")
    vectors = np.random.default_rng(0).standard_normal((data.n_users, 384), dtype=np.float32)
    report.add(
        f"neighbours_{size}",
        seconds_of(lambda: knn_table(vectors, 10), device, 1),
        unit="s",
        baseline=f"exact, {data.n_users:,} x 384",
    )


def main() -> None:
    arguments = arguments_of()
    deadline = time.monotonic() + 60 * arguments.minutes
    device, quick = arguments.device, arguments.quick
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device answers; --device cpu runs the same code")
    if arguments.folder is not None:
        os.environ.setdefault("RECMODELS_SHARED_DATA", str(arguments.folder))
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    report = Report(f"{name}, torch {torch.__version__}")
    about: dict[str, Any] = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}
    small, _ = problem("quick")

    def measure(part: str) -> None:
        sets = ["baby"] if quick else arguments.sets.split(",")
        if part == "tests" and device == "cuda":
            run_tests(report)
        elif part == "equality":
            measure_equality(report, small, device)
        elif part == "kernels":
            for size in sets:
                measure_kernels(report, small if quick else problem(size)[0], size, device, 2 if quick else 5)
        elif part == "epochs":
            for size in sets:
                measure_epochs(report, size, arguments.models.split(","), device, quick=quick)
        elif part == "width" and device == "cuda":
            measure_width(report, device)
        elif part == "transport":
            for size in sets:
                measure_transport(report, size, small if quick else problem(size)[0], device)

    for part in arguments.parts.split(","):
        if part and time.monotonic() < deadline:
            started = time.monotonic()
            measure(part)
            print(f"{part}: {time.monotonic() - started:.0f} s", flush=True)
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(about | {"figures": report.figures}, indent=1) + "\n")
    report.finish(None)
    if arguments.rows:
        timed = "epochs" not in arguments.parts or any(key.startswith("epoch_") for key in report.figures)
        train_rows(arguments, deadline, recorded=timed and not arguments.eager)


if __name__ == "__main__":
    main()
