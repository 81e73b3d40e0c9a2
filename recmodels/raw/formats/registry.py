"""The table of raw formats: to add one, write its file beside this one and add its row."""

from importlib.metadata import entry_points

from recmodels.errors import InputError
from recmodels.raw.formats import mmrec
from recmodels.raw.formats.base import Format, Role
from recmodels.raw.formats.image_features import read_image_features
from recmodels.raw.formats.metadata import read_metadata
from recmodels.raw.formats.reviews import AmazonRelease, reviews_in_blocks
from recmodels.raw.formats.table import table_format

ENTRY_POINTS = "recmodels.formats"
"""Group of the entry points by which an installed package adds formats: name of the format to a `Format`."""


def _amazon(release: AmazonRelease) -> Format:
    in_blocks = reviews_in_blocks(release)
    return Format(
        read_interactions=in_blocks.read,
        in_blocks=in_blocks,
        read_items=lambda path, wanted: read_metadata(path, release, wanted),
        readers={Role.IMAGE_FEATURES: lambda path, items: read_image_features(path, items["asin"].to_list())},
        interactions=Role.REVIEWS,
        items=Role.METADATA,
    )


FORMATS: dict[str, Format] = {
    "amazon2014": _amazon("amazon2014"),
    "amazon2018": _amazon("amazon2018"),
    "amazon2023": _amazon("amazon2023"),
    "mmrec": Format(
        read_interactions=mmrec.read_interactions,
        read_items=lambda path, _: mmrec.read_items(path),
        readers={
            Role.IMAGE_FEATURES: lambda path, items: mmrec.read_feature_array(path, items.height),
            Role.TEXT_FEATURES: lambda path, items: mmrec.read_feature_array(path, items.height),
            Role.IMAGE_KNN: lambda path, items: mmrec.read_neighbours(path, items.height),
            Role.TEXT_KNN: lambda path, items: mmrec.read_neighbours(path, items.height),
        },
        numbered=True,
    ),
    "table": table_format({}),
}
"""Every format by its name in the catalogue. A notebook may add its own; a service installs it as an entry point."""


def format_named(name: str) -> Format:
    """
    Return a format of the table, or one that an installed package offers.

    Raises
    ------
    InputError
        If there is none of that name, or what is offered is no `Format`.

    Examples
    --------
    >>> [role.value for role in format_named("amazon2018").roles]
    ['reviews', 'metadata', 'image_features']
    """
    if name in FORMATS:
        return FORMATS[name]
    offered = entry_points(group=ENTRY_POINTS)
    if name not in offered.names:
        raise InputError(
            f"raw format {name!r}",
            expected=f"one of {', '.join([*FORMATS, *sorted(offered.names)])}",
            found="none of that name",
            action=f"Correct the catalogue, or install the package that has it as entry point of {ENTRY_POINTS}.",
        )
    found = offered[name].load()
    if not isinstance(found, Format):
        raise InputError(f"raw format {name!r}", expected=f"a Format at {offered[name].value}", found=repr(found))
    FORMATS[name] = found
    return found
