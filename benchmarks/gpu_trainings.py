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
from recmodels.training import loop
from recmodels.training.trainer import fit
from recmodels.validation import nested

FIGURES = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")


def train_rows(arguments: argparse.Namespace, deadline: float, *, recorded: bool) -> None:
    """
    Train rows in order until the deadline: JSON lines as they come, and the values of users as Parquet.

    A line is ``set/row/seed[/setting=value...]``. ``+`` after the row adds its calibrated form; with settings, only the
    validation rows are looked at. ``set/choose/name/seeds/row[:setting=value...];...`` takes the one of these that did
    best on the validation rows with seed 0 and trains it under that name with all seeds.
    """
    text = Path(arguments.rows[1:]).read_text() if arguments.rows.startswith("@") else arguments.rows.replace(",", "\n")
    waiting = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")][::-1]
    arguments.results.mkdir(parents=True, exist_ok=True)
    commit = os.environ.get("RECMODELS_COMMIT", "")
    of_valid: dict[tuple[str, str], float] = {}
    running: dict[Future[Any], str] = {}
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(arguments.workers, context, _start, (arguments.workers, recorded)) as pool,
        (arguments.results / "rows.jsonl").open("a") as lines,
    ):
        for name in dict.fromkeys(line.split("/")[0] for line in reversed(waiting)):
            running[pool.submit(_embed, arguments.folder, name, arguments.device)] = name
        ready: set[str] = set()
        while waiting or running:
            while len(running) < arguments.workers and time.monotonic() < deadline:
                at = next((n for n in reversed(range(len(waiting))) if waiting[n].split("/")[0] in ready), None)
                if at is None:
                    break
                task = waiting.pop(at)
                if task.split("/")[1] == "choose":
                    waiting += _chosen(task, of_valid)
                else:
                    running[pool.submit(trained, task, arguments.folder, arguments.device, commit)] = task
            if not running or time.monotonic() > deadline + arguments.grace:
                break
            for done in wait(running, timeout=2, return_when=FIRST_COMPLETED).done:
                task = running.pop(done)
                try:
                    rows = done.result()
                except Exception as error:
                    # The trainings that are left are worth more than a stop.
                    print(f"{task} failed: {type(error).__name__}: {error}"[:400], flush=True)
                    continue
                if "/" not in task:
                    ready.add(task)
                    print(f"{task} embedded: {rows:.0f} s", flush=True)
                    continue
                for row, values in rows:
                    lines.write(json.dumps(row) + "\n")
                    lines.flush()
                    if row["seed"] == 0:
                        of_valid[row["dataset"], row["variant"]] = row["valid"]["recall@20"]
                    shown = [round((row["test"] or row["valid"])[figure], 4) for figure in ("recall@20", "ndcg@20")]
                    print(
                        f"{task} {row['variant']} {row['seconds']:.1f} s, {row['epochs']} epochs, {shown}", flush=True
                    )
                    if values is not None:
                        path = arguments.results / f"users-{row['dataset']}.parquet"
                        kept = pl.read_parquet(path) if path.exists() else values.select("user_id")
                        table = kept.with_columns(values.drop("user_id").get_columns())
                        table.write_parquet(path, compression_level=19)
        print("not run:", *running.values(), *reversed(waiting), flush=True)
        for process in list((pool._processes or {}).values()):
            process.kill()


def _chosen(task: str, of_valid: dict[tuple[str, str], float]) -> list[str]:
    name, _, label, seeds, candidates = task.split("/")
    found = {one: of_valid[key] for one in candidates.split(";") if (key := (name, one.replace(":", "/"))) in of_valid}
    if not found:
        return []
    best = max(found, key=lambda one: found[one])
    print(f"{name}: of {found} by validation, {best}", flush=True)
    row, *settings = best.split(":")
    return ["/".join([name, f"{row}+@{label}", seed, *settings]) for seed in reversed(seeds.split(":"))]


def _start(n_workers: int, recorded: bool) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // n_workers))
    if not recorded:
        loop.records_steps = lambda model: False


def _embed(folder: Path, name: str, device: str) -> float:
    started = time.monotonic()
    Published(folder, name, device).embed()
    return time.monotonic() - started


@cache
def _published(folder: Path, name: str, device: str) -> Published:
    return Published(folder, name, device)


def trained(task: str, folder: Path, device: str, commit: str) -> list[tuple[dict[str, Any], pl.DataFrame | None]]:
    """Train a row and evaluate it and, where asked by ``+``, its calibrated form."""
    name, row, seed_text, *settings = task.split("/")
    published = _published(folder, name, device)
    row, _, chosen = row.partition("@")
    with_calibrated, row = row.endswith("+"), row.removesuffix("+")
    named = (setting.split("=") for setting in settings)
    overrides = nested({"training.device": device} | {key: json.loads(value) for key, value in named})
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
    fitted = fit(build_model(resolved.model, resolved.config, data, int(seed_text)), data, seed=int(seed_text))
    common |= {
        "seconds": time.perf_counter() - started,
        "epochs": fitted.history.height,
        "best_epoch": fitted.best_epoch,
        "settings": resolved.config.model_dump(mode="json"),
    }
    label = chosen or "/".join([row, *settings])
    only_valid = resolved.spec.validation_only or (bool(settings) and not chosen)
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
        "user_id", *(pl.col(figure).cast(pl.Float32).alias(f"{key}|{figure}") for figure in FIGURES)
    )
    return row, values
