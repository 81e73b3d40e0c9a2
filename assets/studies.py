"""
Studies: the tables of the papers and our own, from what the graph has of their rows.

Which studies there are, and what their tables say, is `recmodels.studies`; their rows are trained and measured where
those of models are.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import dagster as dg

from assets.evaluation import metrics_key, user_metrics_key
from assets.serving import seed_partition
from assets.support.checks import Verdict, recorded_check
from assets.support.dagster_internals import keys_with_events
from assets.support.io_managers import read_table, recorded_path
from assets.support.lineage import (
    SPLIT_DIGEST,
    inline_image,
    latest_materialization,
    materialized,
    recorded_json,
    settings_held,
)
from assets.support.partitions import ALL_SEEDS
from assets.support.resources import DataRoot
from assets.support.stage import STUDY_JOB, stage_asset
from assets.training import COMMIT, DEVICE, TRAINED, checkpoint_key
from recmodels.calibration.config import CALIBRATED
from recmodels.errors import InputError
from recmodels.io.digest import digest_of, frame_digest
from recmodels.models.registry import NON_PERSONALISED
from recmodels.settings import Settings
from recmodels.studies.entries import Study, load_studies

if TYPE_CHECKING:
    from recmodels.studies.results import ResultRow
    from recmodels.studies.tables import StudyTable

STUDIES = load_studies()
"""The studies that there are, by name; what changes in their files is seen when the code is loaded again."""


def study_key(name: str) -> dg.AssetKey:
    """Return the key of a study's table."""
    return dg.AssetKey(["study", name])


def row_keys(study: Study) -> Iterator[dg.AssetKey]:
    """Yield the assets that a study reads: checkpoints, and metrics of rows of which test rows may be looked at."""
    for row in study.rows:
        if row not in NON_PERSONALISED:
            yield checkpoint_key(row)
        if study.rows_of == "test":
            yield metrics_key(row)
            yield user_metrics_key(row)


def study_asset(study: Study) -> dg.AssetsDefinition:
    """Return the asset with the table of a study."""

    @stage_asset(
        key=study_key(study.name),
        group_name="studies",
        job=STUDY_JOB,
        on_request=True,
        settings=lambda _entry: Settings.of(study.model_dump(mode="json", exclude={"name", "data_sets"})),
        kinds={"polars", "parquet"},
        code_version="1",
        deps=[dg.AssetDep(key, partition_mapping=ALL_SEEDS) for key in row_keys(study)],
        description=f"{study.title}. {study.about} Means and spread over seeds, published figures, paired tests.",
    )
    def table(context: dg.AssetExecutionContext, data_root: DataRoot) -> dg.MaterializeResult[object]:
        from recmodels.studies.page import rendered

        made = table_of(context.instance, data_root, study, context.partition_key)
        if made.figures.is_empty():
            raise InputError(
                f"study {study.name} of {context.partition_key}",
                expected=f"results of some of its rows with seeds {', '.join(map(str, study.seeds))}",
                found="none",
                action=f"Run `recmodels study {study.name} --dataset {context.partition_key}`.",
            )
        told = made.as_json()
        told["rows"] = [{name: row[name] for name in row.keys() - {"settings", "users"}} for row in told["rows"]]
        tests = [str(test.comparison.model_dump(mode="json")) for test in made.tests]
        return materialized(
            context,
            made.figures,
            data_version=digest_of(frame_digest(made.figures.drop("seconds")), *tests),
            metadata={
                "table": dg.MetadataValue.md(rendered(made)),
                "picture": inline_image(_picture(made)),
                "results": dg.MetadataValue.json(told),
                "missing": len(made.missing),
            },
        )

    return table


def table_of(instance: dg.DagsterInstance, data_root: DataRoot, study: Study, dataset: str) -> "StudyTable":
    """Return the table of a study from what an instance has of its rows now."""
    from recmodels.studies.results import Results, compared, users_beside
    from recmodels.studies.tables import study_table

    of_valid = study.rows_of == "valid"
    rows = result_rows(instance, data_root, dataset, study.rows, study.seeds, of_valid=of_valid)
    results = Results().with_rows(rows)
    users = users_beside(data_root.root)
    tests = compared(results.rows, users, dataset, study.comparisons, study.metrics, study.seeds)
    return study_table(study, dataset, results.with_comparisons(tests))


def result_rows(
    instance: dg.DagsterInstance,
    data_root: DataRoot,
    dataset: str,
    rows: Iterable[str],
    seeds: Iterable[int],
    *,
    of_valid: bool = False,
) -> "Iterator[ResultRow]":
    """Yield what an instance has of rows on a data set: measured of their current checkpoints, or in their training."""
    seeds, there = list(seeds), keys_with_events(instance)
    for name in rows:
        if not there & {checkpoint_key(name), metrics_key(name)}:
            continue
        for seed in seeds:
            row = _result_row(instance, data_root, dataset, name, seed, of_valid=of_valid)
            if row is not None:
                yield row


def _result_row(
    instance: dg.DagsterInstance, data_root: DataRoot, dataset: str, name: str, seed: int, *, of_valid: bool
) -> "ResultRow | None":
    from recmodels.studies.results import ResultRow

    partition = seed_partition(dataset, seed)
    facts: dict[str, object] = {"variant": name, "dataset": dataset, "seed": seed, "source": "graph"}
    trained = None if name in NON_PERSONALISED else latest_materialization(instance, checkpoint_key(name), partition)
    if trained is not None:
        facts |= _of_training(trained)
    spec = TRAINED.get(name.removeprefix(CALIBRATED))
    if of_valid or (spec is not None and spec.validation_only):
        return ResultRow.model_validate(facts) if trained is not None else None
    record = latest_materialization(instance, metrics_key(name), partition)
    if record is None or (name not in NON_PERSONALISED and trained is None):
        return None
    read = recorded_json(record, "read")
    key = checkpoint_key(name).to_user_string()
    if trained is not None and read.get(key) != (trained.tags or {})["dagster/data_version"]:
        return None  # measured of an earlier checkpoint
    metrics = read_table(instance, data_root, metrics_key(name), partition)
    groups: dict[str, dict[str, float]] = {}
    for grouping, group, _, metric, k, value in metrics.select(
        "grouping", "group", "n_users", "metric", "k", "value"
    ).iter_rows():
        if grouping != "all" and (metric, k) == ("recall", 20):
            groups.setdefault(grouping, {})[group] = value
    overall = metrics.filter(grouping="all")
    return ResultRow.model_validate(
        {
            "data_versions": read,
            **facts,
            "test": {f"{metric}@{k}": value for metric, k, value in overall.select("metric", "k", "value").iter_rows()},
            "groups": groups,
            "users": str(recorded_path(instance, data_root, user_metrics_key(name), partition)),
            "split_digest": metrics["split_digest"][0],
            "provenance": metrics["provenance"][0],
        }
    )


def _of_training(record: dg.AssetMaterialization) -> dict[str, object]:
    """Return what a checkpoint recorded of its training."""
    told = {name: entry.value for name, entry in record.metadata.items()}
    read = recorded_json(record, "read")
    settings = settings_held(record)
    return {
        "device": str(told.get(DEVICE, "")),
        "commit": str(told.get(COMMIT, "")),
        "seconds": told.get("seconds"),
        "epochs": told.get("epochs"),
        "best_epoch": told.get("best_epoch"),
        "valid": {"recall@20": told["valid_recall@20"]},
        "settings": settings,
        "data_versions": read,
        "split_digest": str(told[SPLIT_DIGEST]),
    }


def _picture(table: "StudyTable") -> bytes:
    from recmodels.reporting.studies import SweepPanel, study_bars, sweeps

    figure = table.study.metrics[0]
    if not table.study.panels:
        return study_bars(table.figures, figure)
    means = dict(table.figures.filter(figure=figure).select("variant", "mean").iter_rows())
    panels = [
        SweepPanel(panel.title, figure, [(TRAINED[row].point, means[row]) for row in of_panel])
        for panel in table.study.panels
        if (of_panel := [row for row in means if row.startswith(f"{panel.sweep}-")])
    ]
    return sweeps(panels)


def complete_check(study: Study) -> dg.AssetChecksDefinition:
    """Return the check that a study has every row with every seed."""

    @recorded_check(study_key(study.name), "The study has a result of every row with every seed.", blocking=False)
    def complete(records: list[dg.AssetMaterialization]) -> Verdict:
        missing = int(str(records[0].metadata["missing"].value))
        measured = {"missing": missing}
        if not missing:
            return Verdict(measured)
        return Verdict(
            measured,
            f"{missing} rows and seeds of {len(study.rows)} x {len(study.seeds)} have no result, expected none. Run "
            f"`recmodels study {study.name}` for the data set: it makes what is missing.",
        )

    return complete


studies = [study_asset(study) for study in STUDIES.values()]
complete_checks = [complete_check(study) for study in STUDIES.values()]
"""One check a study."""
