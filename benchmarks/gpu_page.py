"""docs/gpu.md from docs/gpu.json: the tables of what `benchmarks/gpu.py` measured, and the words around them."""

import itertools
import json
from pathlib import Path
from typing import Any

from recmodels.models.registry import MODELS

DOCS = Path(__file__).resolve().parents[1] / "docs"
STEPWISE = [name for name, spec in MODELS.items() if not spec.closed_form]


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def shown(value: float | None, pattern: str = "{:,.2f}") -> str:
    return "" if value is None else pattern.format(value)


def training(figures: dict[str, float], size: str, name: str) -> tuple[list[str], list[str]]:
    """Return the cells of a step and an epoch, and those of validation and memory."""
    times = [shown(figures[f"step_ms_{size}_{name}"]), shown(1e3 * figures[f"epoch_{size}_{name}"], "{:,.0f}")]
    validation, memory = 1e3 * figures[f"validation_{size}_{name}"], figures[f"peak_mb_{size}_{name}"]
    return times, [shown(validation, "{:,.0f}"), shown(memory, "{:,.0f}")]


def epochs(figures: dict[str, float]) -> list[str]:
    rows: list[list[str]] = []
    for name in STEPWISE:
        epoch = figures.get(f"epoch_baby_{name}")
        if epoch is None:
            continue
        eager, textbook = (figures.get(f"{kind}_baby_{name}") for kind in ("eager", "textbook"))
        times, others = training(figures, "baby", name)
        unrecorded = shown(1e3 * eager if eager else None, "{:,.0f}")
        ratio = shown(textbook / epoch if textbook else None, "{:.1f}")
        rows.append([MODELS[name].title, *times, unrecorded, ratio, *others])
    heads = ["Baby, batches as published, d = 64", "step, ms", "epoch, ms", "unrecorded, ms", "times the textbook's"]
    return table([*heads, "validation, ms", "memory, MB"], rows)


def larger_sets(figures: dict[str, float]) -> list[str]:
    sizes = {"sports": "Sports", "clothing": "Clothing"}
    rows = [
        [f"{MODELS[name].title}, {title}", *itertools.chain(*training(figures, size, name))]
        for size, title in sizes.items()
        for name in STEPWISE
        if f"epoch_{size}_{name}" in figures
    ]
    return table(["alone on the device", "step, ms", "epoch, ms", "validation, ms", "memory, MB"], rows)


def products(figures: dict[str, float]) -> list[str]:
    names = {"csr": "cuSPARSE, CSR (taken)", "bags": "embedding bags", "segments": "gather and segment sums"}
    rows = [
        [title, *(shown(figures.get(f"product_baby_{key}_{kind}_us"), "{:,.0f}") for kind in ("float32", "bfloat16"))]
        for key, title in names.items()
    ]
    return table(["Baby's adjacency times 64 columns, us", "float32", "bfloat16"], rows)


def equality(figures: dict[str, float]) -> list[str]:
    parts = ("loss", "users", "items", "gradients")
    rows = [
        [MODELS[name].title, *(shown(figures.get(f"distance_{name}_{part}"), "{:.0e}") for part in parts)]
        for name in STEPWISE
        if f"distance_{name}_loss" in figures
    ]
    return table(["distance from the CPU, relative", *parts], rows)


def rendered(measured: dict[str, Any]) -> str:
    figures = measured["figures"]
    same = figures["transport_baby_same_pairs"]
    device = f"{measured['device']} with PyTorch {measured['torch']}"
    on_cpu, on_cuda = (figures[f"transport_baby_{backend}"] for backend in ("structured", "cuda"))
    lines = [
        "# On a CUDA device",
        "",
        "`make run` trains on a CUDA device where one answers; nothing has to be set. Losses, validation, sampling and",
        "edge dropping stay there: the host reads one number for 64 steps and one an epoch. A step is recorded as a",
        "CUDA graph in each epoch and replayed, but for BRIDGE and GUME, whose steps need the CPU, and where recording",
        "fails, which a warning says.",
        "",
        f"Measured by `benchmarks/gpu.py` on one {device} and 16 cores, in `docs/gpu.json`;",
        "this page is rendered from it by `python -m benchmarks.gpu_page`.",
        "",
        *epochs(figures),
        "",
        "The textbook's loop draws its negatives in Python and multiplies by COO matrices, on the same device.",
        f"RecGOAT at the width published for Baby, 800: {figures['epoch_baby_recgoat_800']:.1f} s an epoch, "
        f"{figures['peak_mb_baby_recgoat_800']:,.0f} MB.",
        "",
        *larger_sets(figures),
        "",
        *products(figures),
        "",
        "bfloat16 gains nothing here, so products stay in float32.",
        "",
        *equality(figures),
        "",
        "Nothing is drawn in these steps but in GUME's, whose noise differs between devices.",
        "",
        f'Baby\'s transport took {on_cpu:.2f} s on the CPU and {on_cuda:.2f} s with `backend = "cuda"`,',
        f"with {same:.0%} of the pairs in common; exact neighbours of 19,445 x 384 vectors took",
        f"{figures['neighbours_baby']:.2f} s.",
        "",
        "FREEDOM on Baby, to the end of its early stopping: 6.0 to 8.9 s (111 to 130 epochs), while other processes",
        "prepared data. Trainings at once share the device in turns: FREEDOM on Sports took 88 to 144 s beside seven",
        "others, BLAST 42 to 68 s on Sports and Clothing beside two. The trainings of docs/results.md that name the",
        "device were made there; five of them, made twice, gave the same recall and NDCG to the last digit.",
        "",
        "The tests that need a device, run there at the last visit: 9 of 23 passed. 14 failed, by what the tests did",
        "and not by what they test: they kept a step's gradients of another stream, for which no recorded step waits,",
        "took torch's notes on sparse matrices for errors, or compared GUME's noise. They are mended and were not",
        "run on a device again.",
        "",
        "Not measured on a device: FAISS's own GPU indices (exact search is PyTorch's and ran there), the embedding of",
        "texts apart from the trainings, several devices.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    (DOCS / "gpu.md").write_text(rendered(json.loads((DOCS / "gpu.json").read_text())))


if __name__ == "__main__":
    main()
