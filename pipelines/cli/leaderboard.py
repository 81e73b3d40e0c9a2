"""`recmodels leaderboard`: the models of a data set, best first."""

from pipelines.cli.options import Dataset, data_set
from pipelines.cli.rows import AsJson, show_rows


def leaderboard(dataset: Dataset = "demo", as_json: AsJson = False) -> None:
    """
    Show the current leaderboard of a data set.

    Figures are means over seeds ± standard deviations, on the test rows. With --json every metric and list length has a
    row of model, seeds, metric, k, mean and std.
    """
    from assets.support.io_managers import read_table
    from assets.support.resources import DataRoot
    from pipelines.instance import open_instance
    from recmodels.reporting.tables import leaderboard_figures

    with open_instance() as instance:
        board = read_table(instance, DataRoot(), "leaderboard", data_set(dataset).key)
    rows = board.select("model", "metric", "k", "mean", "std", seeds="n_seeds")
    if as_json:
        show_rows(rows.select("model", "seeds", "metric", "k", "mean", "std").to_dicts(), as_json=True)
    else:
        show_rows(leaderboard_figures(board).to_dicts(), as_json=False)
