"""What answers about users, items and recommendations look like where they are shown: plain, JSON-ready rows."""

from typing_extensions import TypedDict


class Item(TypedDict):
    """An item as it is shown; `picture` is an address of the metadata that may be loaded, null where there is none."""

    asin: str
    title: str
    picture: str | None


class User(TypedDict):
    """A user with the number of training rows and the activity group that this is."""

    user: str
    n_train: int
    group: str


class HistoryItem(Item):
    """An item that a user had before the test; seconds since the epoch."""

    split: str
    rating: float | None
    timestamp: int | None


class Profile(TypedDict):
    """A profile beside the texts that it was made from."""

    text: str
    written_by: str
    made_from: list[str]


class UserDetails(User):
    """What is known of a user: history, the latest first, test items, and the profile if there is one."""

    history: list[HistoryItem]
    held_out: list[Item]
    profile: Profile | None


class ItemDetails(Item):
    """What is known of an item."""

    n_train: int
    description: str
    profile: Profile | None


class Recommended(Item):
    """A recommended item; `held_out` tells whether it is among the user's test items."""

    rank: int
    score: float
    source: str
    held_out: bool


class SimilarItem(Item):
    """An item that a model finds similar."""

    rank: int
    similarity: float


class Reason(TypedDict):
    """
    One item of a user that speaks for another.

    ``model``: the share of the score that comes of it, exactly. ``calibration: <evidence>``: its support, which moved
    the item. ``graph: <graph>``: the cosine of two neighbours, null where an import has none; ``co-buyers``: how many
    other users had both in training. The last two are found in the data, whatever the model made of them.
    """

    kind: str
    because: Item
    weight: float | None
    users: int | None
