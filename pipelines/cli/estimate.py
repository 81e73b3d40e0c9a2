"""`recmodels estimate`: what profiles would take."""

from dataclasses import fields

from pipelines.cli.options import Dataset, Profiles, ProfileSetting, data_set, profile_overrides
from pipelines.cli.output import CONSOLE, plain_table


def estimate(dataset: Dataset = "demo", profiles: Profiles = "", profile_setting: ProfileSetting = None) -> None:
    """Say what profiles would take and cost, without a call. The tables of the data set have to be there."""
    from assets.profiles import CACHE
    from assets.support.io_managers import read_table
    from assets.support.resources import DataRoot
    from pipelines.instance import open_instance
    from recmodels.profiles.write import Estimate, item_task, user_task
    from recmodels.profiles.write import estimate as estimated
    from recmodels.settings import profile_config

    entry, root = data_set(dataset), DataRoot()
    names = ("items", "users", "reviews", "interactions")
    with open_instance() as instance:
        items, users, reviews, interactions = (read_table(instance, root, name, entry.key) for name in names)
    config = profile_config(entry, profile_overrides(profiles, profile_setting))
    of_items = item_task(items, reviews, interactions, domain=entry.domain, config=config)
    of_users = user_task(items, None, reviews, interactions, n_users=users.height, domain=entry.domain, config=config)
    estimates = {"items": estimated(of_items, root.cache(CACHE)), "users": estimated(of_users, root.cache(CACHE))}
    table = plain_table(f"{entry.key}: profiles by {config.backend}, without a call")
    table.add_column("")
    for kind in estimates:
        table.add_column(kind, justify="right")
    for line in fields(Estimate):
        values = [getattr(each, line.name) for each in estimates.values()]
        table.add_row(line.name.replace("_", " "), *(_shown(value) for value in values))
    CONSOLE.print(table)


def _shown(value: float | bool | None) -> str:
    if value is None:
        return "unknown before a first run"
    return str(value) if isinstance(value, bool) else f"{value:,.2f}".removesuffix(".00")
