"""The report of a data set: one HTML file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from assets.calibration import CALIBRATED_TITLES
from assets.evaluation import TITLES, identifier, metrics_key, user_metrics_key
from assets.recommendations import recommendations_key
from assets.support.checks import Verdict, stored_check, table_check
from assets.support.io_managers import LAZY, recorded_path
from assets.support.lineage import events_read, latest_materialization, materialized, settings_held
from assets.support.links import explorer_link
from assets.support.partitions import ALL_SEEDS, entry_of, seed_of
from assets.support.resources import DataRoot
from assets.support.stage import stage_asset
from assets.training import COMMIT, DEVICE, TESTED, checkpoint_key
from recmodels.data.split import split_digest
from recmodels.errors import MissingObject
from recmodels.io.digest import digest_of
from recmodels.models.registry import NON_PERSONALISED
from recmodels.profiles.config import ProfileConfig
from recmodels.profiles.write import item_task, user_task
from recmodels.reporting.examples import example_items, example_users
from recmodels.reporting.self_contained import references_to_outside
from recmodels.reporting.tables import leaderboard_summary
from recmodels.settings import calibration_settings, report_settings, training_settings
from recmodels.validation import validated

if TYPE_CHECKING:
    from recmodels.reporting.models import Training
    from recmodels.reporting.report import LineageRow

CODE_VERSION = "3"
TABLES = ("leaderboard", "interactions", "items", "users", "reviews", "item_profiles", "user_profiles")
LISTED = (
    "raw_dumps", "item_ids", "rejects", "item_text_embeddings", "user_text_embeddings", "item_image_embeddings",
    "item_text_knn", "item_image_knn", "user_knn", "augmented_interactions",
)  # fmt: skip
"""Assets whose records alone are shown."""
MEASURED = [*TITLES, *NON_PERSONALISED]


def _of_all_seeds(key: dg.AssetKey, *, lazy: bool = False) -> dg.AssetIn:
    return dg.AssetIn(key, partition_mapping=ALL_SEEDS, metadata={LAZY: lazy})


@stage_asset(
    group_name="report",
    job="evaluate",
    settings=report_settings,
    kinds={"html"},
    code_version=CODE_VERSION,
    io_manager_key="document_io",
    metadata={"suffix": ".html"},
    ins={
        **{name: dg.AssetIn(name) for name in TABLES},
        **{f"checkpoint_{identifier(name)}": _of_all_seeds(checkpoint_key(name)) for name in TESTED},
        **{f"metrics_{identifier(name)}": _of_all_seeds(metrics_key(name)) for name in MEASURED},
        **{f"user_metrics_{identifier(name)}": _of_all_seeds(user_metrics_key(name), lazy=True) for name in MEASURED},
        **{
            f"recommendations_{identifier(name)}": _of_all_seeds(recommendations_key(name), lazy=True)
            for name in TITLES
        },
    },
    deps=LISTED,
)
def report(context: dg.AssetExecutionContext, **inputs: Any) -> dg.MaterializeResult[str]:
    """
    One self-contained HTML file for a data set.

    Leaderboard with tests of significance, figures by group, how each model was trained, statistics, users with the
    lists of all models side by side, profiles beside their sources, and the data version of every asset. Its data
    version is that of the page without times, machine and commit.
    """
    from recmodels.checkpoints.store import load_history
    from recmodels.reporting.build import ReportInputs, build_report
    from recmodels.reporting.report import without_measured

    dataset = context.partition_key
    tables: dict[str, pl.DataFrame] = {name: inputs[name] for name in TABLES}
    interactions, items, users, reviews = (tables[name] for name in ("interactions", "items", "users", "reviews"))
    shown = example_users(interactions)
    split = split_digest(interactions)
    notes = _notes(context)
    events = events_read(context)
    inputs_read = [event.asset_materialization for event in events if event.asset_materialization]
    metrics = [frame for name in MEASURED for frame in inputs[f"metrics_{identifier(name)}"].values()]
    user_metrics = {name: runs for name in MEASURED if (runs := inputs[f"user_metrics_{identifier(name)}"])}
    item_domain, item_config = _profiles_written(context, "item_profiles")
    user_domain, user_config = _profiles_written(context, "user_profiles")
    of_items = item_task(items, reviews, interactions, domain=item_domain, config=item_config)
    of_users = user_task(
        items,
        tables["item_profiles"],
        reviews,
        interactions,
        n_users=users.height,
        domain=user_domain,
        config=user_config,
    )
    html = build_report(
        ReportInputs(
            dataset=dataset,
            title=entry_of(dataset).title,
            split_digest=split,
            split_rule=_recorded(context, "interactions", "split"),
            newest_input=max(event.timestamp for event in events),
            notes=notes,
            leaderboard=tables["leaderboard"],
            metrics=pl.concat(metrics),
            user_metrics={name: list(runs.values()) for name, runs in user_metrics.items()},
            trainings=list(_trainings(context, user_metrics)),
            interactions=interactions,
            items=items,
            users=users,
            item_profiles=tables["item_profiles"],
            user_profiles=tables["user_profiles"],
            histories={
                name: [load_history(path).select("epoch", "valid_recall") for path in runs.values()]
                for name, spec in TESTED.items()
                if not spec.closed_form and (runs := inputs[f"checkpoint_{identifier(name)}"])
            },
            recommendations={
                name: next(iter(runs.values())).filter(pl.col("user_id").is_in(shown)).collect()
                for name in TITLES
                if (runs := inputs[f"recommendations_{identifier(name)}"])
            },
            item_evidence=[of_items.explain(item) for item in example_items(interactions)],
            user_evidence=[of_users.explain(user) for user in shown[:2]],
            funnel=_funnel(_record(context, "interactions")),
            lineage=_lineage(inputs_read),
        )
    )
    return materialized(
        context,
        html,
        data_version=digest_of(without_measured(html)),
        inputs=inputs_read,
        split=split,
        metadata={
            "summary": dg.MetadataValue.md("\n\n".join([leaderboard_summary(tables["leaderboard"]), *notes])),
            "open": explorer_link(f"report/{dataset}"),
            "explorer": explorer_link(dataset=dataset),
            "size_bytes": len(html.encode()),
        },
    )


def _profiles_written(context: dg.AssetExecutionContext, asset: str) -> tuple[str, ProfileConfig]:
    """Return the domain and the configuration that profiles were written with."""
    held = settings_held(_record(context, asset))
    domain = str(held.pop("domain"))
    return domain, validated(ProfileConfig, held, f"settings that {asset} recorded")


def _record(context: dg.AssetExecutionContext, asset: str) -> dg.AssetMaterialization:
    record = latest_materialization(context.instance, dg.AssetKey(asset), context.partition_key)
    if record is None:
        raise MissingObject(f"{asset} of {context.partition_key} was never materialised: materialise it first.")
    return record


def _recorded(context: dg.AssetExecutionContext, asset: str, entry: str) -> str:
    value = _record(context, asset).metadata.get(entry)
    return str(value.value) if value else ""


def _funnel(interactions: dg.AssetMaterialization) -> list[tuple[str, int]]:
    """Return the steps from the raw lines to the rows; none where they were not recorded."""
    entry = interactions.metadata.get("funnel")
    steps: Any = entry.value if entry else []
    return [(str(step["step"]), int(step["rows"])) for step in steps]


def _trainings(context: dg.AssetExecutionContext, measured: Mapping[str, Iterable[str]]) -> "Iterator[Training]":
    """Yield how each model that was measured was trained, by what its checkpoints recorded."""
    from recmodels.reporting.models import Training

    entry = entry_of(context.partition_key)
    for name in measured.keys() & TITLES.keys():
        settings = calibration_settings(entry) if name in CALIBRATED_TITLES else training_settings(entry, name)
        for partition_key in measured[name]:
            record = latest_materialization(context.instance, checkpoint_key(name), partition_key)
            if record is None:
                continue
            told: dict[str, Any] = {key: value.value for key, value in record.metadata.items()}
            by_epochs = name in TESTED and not TESTED[name].closed_form
            yield Training(
                model=name,
                seed=seed_of(partition_key),
                settings=settings.beside_defaults(settings_held(record)),
                epochs=told.get("epochs") if by_epochs else None,
                kept_epoch=int(told["best_epoch"]) if by_epochs and "best_epoch" in told else None,
                seconds=told.get("seconds"),
                device=str(told.get(DEVICE, "")),
                commit=str(told.get(COMMIT, "")),
            )


def _notes(context: dg.AssetExecutionContext) -> list[str]:
    def recorded(entry: str, value: str) -> str:
        kinds = [kind for kind in ("item", "user") if _recorded(context, f"{kind}_profiles", entry) == value]
        return " and the ".join(f"{kind} profiles" for kind in kinds)

    notes: list[str] = []
    if written := recorded("language_model", "no"):
        notes.append(
            f"The {written} were written by the extractive summariser, which is not a language model: figures that "
            "rest on them say nothing about LLM profiles."
        )
    if leaking := recorded("held_out_included", "yes"):
        notes.append(f"The {leaking} have read held-out reviews: test figures that rest on them leak the answer.")
    return notes


def _lineage(records: Sequence[dg.AssetMaterialization]) -> "list[LineageRow]":
    from recmodels.reporting.report import LineageRow

    rows: list[LineageRow] = []
    for record in records:
        tags = record.tags or {}
        count = record.metadata.get("dagster/row_count")
        rows.append(
            LineageRow(
                asset=record.asset_key.to_user_string(),
                partition=record.partition or "",
                data_version=tags.get("dagster/data_version", ""),
                code_version=tags.get("dagster/code_version", ""),
                rows=f"{count.value:,}" if count else "",
            )
        )
    return rows


@table_check("leaderboard", "Every model was measured with the same metrics at the same list lengths.")
def comparable_models(board: pl.DataFrame) -> Verdict:
    """Compare what was measured for each model."""
    models, figures = board.select("model").unique(), board.select("metric", "k").unique()
    missing = models.join(figures, how="cross").join(board, on=["model", "metric", "k"], how="anti")
    measured = {"models": models.height, "figures": figures.height}
    if missing.is_empty():
        return Verdict(measured)
    model, metric, k = missing.sort("model", "metric", "k").row(0)
    return Verdict(
        measured,
        f"{missing.height} of {models.height} x {figures.height} figures are missing, expected none; the first is "
        f"{metric}@{k} of {model}. Materialise metrics/{model} again for every seed, then leaderboard.",
    )


@stored_check(
    "report", "The report is one complete document that loads nothing from outside and runs no script.", blocking=False
)
def self_contained(context: dg.AssetCheckExecutionContext, data_root: DataRoot) -> Verdict:
    """Look for references to other places."""
    path = recorded_path(context.instance, data_root, dg.AssetKey("report"), context.partition_key)
    html = path.read_text(encoding="utf-8")
    foreign = references_to_outside(html)
    measured = {"foreign": ", ".join(foreign) or "nothing"}
    if foreign:
        found = f"{len(foreign)} scripts or references to outside, expected none; the first is {foreign[0]}"
    elif not html.rstrip().endswith("</html>"):
        found = f"0 closing tags are at its end, expected 1; it ends with {html[-20:]!r}"
    else:
        return Verdict(measured)
    return Verdict(
        measured, f"{found}. Correct the template recmodels/reporting/report.html.j2 and materialise report."
    )
