"""`recmodels compare`: whether one model is better than another."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Dataset, data_set
from pipelines.cli.rows import AsJson, say, show_rows
from pipelines.cli.trained import one_model
from recmodels.errors import InputError
from recmodels.models.registry import NON_PERSONALISED

if TYPE_CHECKING:
    import dagster as dg
    import polars as pl


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A model, calibrated/<model>, or a baseline.")],
    second: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    dataset: Dataset = "demo",
    metric: Annotated[str, typer.Option(help="recall, ndcg, mrr, hit, precision or map.")] = "recall",
    k: Annotated[int, typer.Option(help="Length of the lists.")] = 20,
    as_json: AsJson = False,
) -> None:
    """
    Test whether model A differs from model B, paired over the users and seeds that both were measured with.

    A user's value is the mean over the seeds. The p values are two-sided: of the paired t-test and of Wilcoxon's
    signed-rank test.
    """
    from pipelines.instance import open_instance
    from recmodels.evaluation.comparison import compare as compared
    from recmodels.reporting.tables import figure_name

    entry = data_set(dataset)
    pair = [one_model(name, text, *NON_PERSONALISED) for name, text in (("A", first), ("B", second))]
    with open_instance() as instance:
        one, other = (_user_metrics(instance, entry.key, model) for model in pair)
    found = compared(one, other, figure_name(metric, k))
    row = {
        "first": pair[0],
        "second": pair[1],
        "metric": metric,
        "k": k,
        "first_mean": found.first_mean,
        "second_mean": found.second_mean,
        "difference": found.test.difference,
        "relative": found.relative,
        "t_p_value": found.test.t_p_value,
        "wilcoxon_p_value": found.test.wilcoxon_p_value,
        "users": found.test.n_users,
        "seeds": list(found.seeds),
    }
    if as_json:
        show_rows([row], as_json=True)
        return
    relative = "" if found.relative is None else f" ({found.relative:+.1%})"
    say(f"{entry.key}, {figure_name(metric, k)}, test rows")
    say(f"{pair[0]:<24}{found.first_mean:.4f}")
    say(f"{pair[1]:<24}{found.second_mean:.4f}")
    say(f"{'difference':<24}{found.test.difference:+.4f}{relative}")
    say(f"{'p':<24}{found.test.t_p_value:.3g} (paired t), {found.test.wilcoxon_p_value:.3g} (Wilcoxon)")
    say(f"{'over':<24}{found.test.n_users:,} users, seeds {', '.join(map(str, found.seeds))}")


def _user_metrics(instance: "dg.DagsterInstance", dataset: str, model: str) -> "dict[int, pl.DataFrame]":
    """Return the stored values of users by seed."""
    from assets.evaluation import user_metrics_key
    from assets.serving import recorded_seeds, seed_partition
    from assets.support.io_managers import read_table
    from assets.support.resources import DataRoot

    key = user_metrics_key(model)
    seeds = recorded_seeds(instance, key, dataset)
    if not seeds:
        raise InputError(
            f"test metrics of {model} for {dataset}",
            expected="those of at least one seed",
            found="none",
            action="`recmodels datasets` lists what is trained.",
        )
    return {seed: read_table(instance, DataRoot(), key, seed_partition(dataset, seed)) for seed in seeds}
