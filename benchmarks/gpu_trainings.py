"""Real trainings of rows of the studies, several at once on one device; each result is kept as it comes."""

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import torch

from benchmarks.published import Published
from recmodels.calibration.calibrate import calibrate
from recmodels.calibration.config import CALIBRATED, CalibrationConfig
from recmodels.evaluation.evaluator import evaluate
from recmodels.evaluation.non_personalised import popularity_embeddings
from recmodels.models.registry import build_model
from recmodels.ranking.ranker import EmbeddingScorer, Ranker
from recmodels.studies.resolve import resolve
from recmodels.studies.results import ResultRow
from recmodels.training.trainer import fit

FIGURES = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
PER_USER = ("recall@20", "ndcg@20", "recall@10", "ndcg@10")
LONGEST = 240
"""Seconds after which the last trainings are given up, past the deadline for starting one."""


def train_rows(arguments: argparse.Namespace, deadline: float) -> None:
    """Train ``set/row/seed[/key=value...]`` in order until the deadline; JSON lines and values of users as Parquet."""
    text = Path(arguments.rows[1:]).read_text() if arguments.rows.startswith("@") else arguments.rows.replace(",", "\n")
    wanted = [line.strip() for line in text.splitlines() if line.strip()]
    arguments.results.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(line.split("/")[0] for line in wanted):
        started = time.monotonic()
        Published(arguments.folder, name, arguments.device).embed()
        print(f"{name} embedded: {time.monotonic() - started:.0f} s", flush=True)
    commit = os.environ.get("RECMODELS_COMMIT", "")
    users: dict[str, list[pl.DataFrame]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, context, _quiet, (arguments.workers,)) as pool:
        waiting, running = list(reversed(wanted)), dict[Future[Any], str]()
        with (arguments.results / "rows.jsonl").open("a") as lines:
            while waiting or running:
                while waiting and len(running) < arguments.workers and time.monotonic() < deadline:
                    task = waiting.pop()
                    running[pool.submit(trained, task, arguments.folder, arguments.device, commit)] = task
                if not running:
                    break
                for done in wait(running, timeout=5, return_when=FIRST_COMPLETED).done:
                    task = running.pop(done)
                    try:
                        rows = done.result()
                    except Exception as error:
                        print(f"{task} failed: {type(error).__name__}: {error}"[:400], flush=True)
                        continue
                    for row, values in rows:
                        lines.write(json.dumps(row) + "\n")
                        lines.flush()
                        shown = {k: round(v, 4) for k, v in row["test"].items() if k.endswith("@20")}
                        print(
                            f"{task} {row['variant']} {row['seconds']:.1f} s {row['epochs']} {shown or row['valid']}",
                            flush=True,
                        )
                        if values is not None:
                            users.setdefault(row["dataset"], []).append(values)
                if time.monotonic() > deadline + LONGEST:
                    print("given up:", *running.values(), flush=True)
                    break
        for name, frames in users.items():
            keys = ["user_id", *(f"{row}|{figure}" for row in () for figure in PER_USER)]
            table = frames[0].select(keys[:1])
            for frame in frames:
                table = table.with_columns(frame.drop("user_id").get_columns())
            table.write_parquet(arguments.results / f"users-{name}.parquet", compression_level=19)
        if running:
            for process in list(pool._processes.values()):
                process.kill()


def _quiet(n_workers: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // n_workers))


@cache
def _published(folder: Path, name: str, device: str) -> Published:
    return Published(folder, name, device)


def trained(task: str, folder: Path, device: str, commit: str) -> list[tuple[dict[str, Any], pl.DataFrame | None]]:
    """Train a row and evaluate it and, where asked by ``+``, its calibrated form."""
    name, row, seed_text, *settings = task.split("/")
    published = _published(folder, name, device)
    with_calibrated, row = row.endswith("+"), row.removesuffix("+")
    overrides: dict[str, Any] = {"training": {"device": device}}
    for setting in settings:
        key, value = setting.split("=")
        target = overrides
        *path, last = key.split(".")
        for part in path:
            target = target.setdefault(part, {})
        target[last] = json.loads(value)
    common = {
        "dataset": name,
        "seed": int(seed_text),
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "commit": commit,
        "split_digest": published.digest,
    }
    if row == "popularity":
        train = published.pairs("train")
        ranker: Ranker = EmbeddingScorer(*popularity_embeddings(train[1], published.n_users, published.n_items))
        return [_measured(ranker, row, published, common | {"seconds": 0.0, "epochs": 0})]
    resolved = resolve(row, published.entry, overrides)
    data = published.data(resolved)
    started = time.perf_counter()
    model = build_model(resolved.model, resolved.config, data, int(seed_text))
    fitted = fit(model, data, seed=int(seed_text))
    common |= {
        "seconds": time.perf_counter() - started,
        "epochs": fitted.history.height,
        "best_epoch": fitted.best_epoch,
        "settings": resolved.config.model_dump(mode="json"),
    }
    label = "/".join([row, *settings])
    only_valid = resolved.spec.validation_only or bool(settings)
    rows = [_measured(fitted.ranker, label, published, common, only_valid=only_valid)]
    if with_calibrated:
        started = time.perf_counter()
        found = calibrate(fitted.ranker, data, CalibrationConfig())
        common = common | {"seconds": time.perf_counter() - started}
        rows.append(_measured(found.ranker, CALIBRATED + label, published, common, only_valid=only_valid))
    return rows


def _measured(
    ranker: Ranker, label: str, published: Published, common: dict[str, Any], *, only_valid: bool = False
) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """Settings that are tried are looked at on validation rows alone: test rows are for the rows of the studies."""
    train = published.pairs("train")
    valid = evaluate(ranker, train, published.pairs("valid"))
    of_valid = {f"{metric}@{k}": value for metric, k, value in valid.summary.iter_rows()}
    row: dict[str, Any] = {"variant": label, "valid": {figure: of_valid[figure] for figure in FIGURES}, **common}
    if only_valid:
        return {"test": {}, **row}, None
    test = evaluate(ranker, train, published.pairs("test"))
    figures = {f"{metric}@{k}": value for metric, k, value in test.summary.iter_rows()}
    groups: dict[str, dict[str, float]] = {}
    for grouping, group, _, metric, k, value in test.groups.iter_rows():
        if (metric, k) == ("recall", 20):
            groups.setdefault(grouping, {})[group] = value
    row |= {"test": figures, "groups": groups}
    ResultRow.model_validate(row)
    key = f"{label}|{common['seed']}"
    values = test.per_user.select(
        "user_id", *(pl.col(figure).cast(pl.Float32).alias(f"{key}|{figure}") for figure in PER_USER)
    )
    return row, values
