"""Which column of a plain table holds what: by the names that are usual, or by those that a catalogue entry gives."""

from collections.abc import Mapping, Sequence

from recmodels.errors import InputError
from recmodels.validation import did_you_mean

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "user": (
        *("user", "user_id", "reviewer", "reviewer_id", "uid", "u", "customer", "customer_id", "visitor_id"),
        *("member_id", "account_id"),
    ),
    "item": (
        *("item", "item_id", "parent_asin", "asin", "product", "product_id", "movie", "movie_id", "iid", "i"),
        *("book_id", "track_id", "song_id", "game_id", "anime_id", "recipe_id", "sku", "article_id", "business_id"),
        *("gmap_id", "isbn", "id"),
    ),
    "rating": ("rating", "overall", "stars", "score", "rate", "book_rating"),
    "timestamp": (
        *("timestamp", "time", "ts", "unix_review_time", "date", "datetime", "created_at", "t_dat"),
        *("event_time", "event_timestamp", "review_date", "order_date"),
    ),
    "summary": ("summary", "review_title", "headline"),
    "text": ("text", "review_text", "review", "review_body", "comment"),
    "split": ("split", "x_label", "subset", "fold"),
    "title": ("title", "name", "item_name", "product_name", "product_title", "movie_title", "book_title"),
    "description": ("description", "desc", "plot", "overview", "detail_desc"),
    "brand": ("brand", "store", "manufacturer", "publisher"),
    "categories": ("categories", "category", "genres", "genre", "tags"),
    "price": ("price",),
    "image_url": ("image_url", "image", "im_url", "img_url", "poster", "thumbnail"),
}
"""What a column may hold, and how it is usually called: first the likeliest; neither case nor underscores count."""

INTERACTION_COLUMNS = ("user", "item", "rating", "timestamp", "summary", "text", "split")
ITEM_COLUMNS = ("item", "title", "description", "brand", "categories", "price", "image_url")


def found_columns(header: Sequence[str], wanted: Sequence[str], named: Mapping[str, str]) -> dict[str, str]:
    """
    Return the columns of a table by what they hold.

    Parameters
    ----------
    header
        Names of the columns.
    wanted
        What is looked for: keys of `USUAL_NAMES`.
    named
        Columns that a catalogue entry names, by what they hold. Where the table lacks the one of the item, which two
        files may call differently, the usual names count.

    Examples
    --------
    >>> found_columns(["userId", "movieId", "Score", "kauf"], INTERACTION_COLUMNS, {"timestamp": "kauf"})
    {'user': 'userId', 'item': 'movieId', 'rating': 'Score', 'timestamp': 'kauf'}
    """
    plain = {_plain(name): name for name in reversed(header)}
    free = {key: name for key, name in plain.items() if name not in named.values()}
    found: dict[str, str] = {}
    for kind in wanted:
        # The column `id` of a table of interactions numbers its rows.
        names = (name for name in USUAL_NAMES[kind] if name != "id" or "user" not in wanted)
        usual = next((free[_plain(name)] for name in names if _plain(name) in free), None)
        if kind in named and named[kind] in header:
            found[kind] = named[kind]
        elif usual is not None and (kind not in named or kind == "item"):
            found[kind] = usual
    return found


def require_known(named: Mapping[str, str]) -> None:
    """Raise InputError, with the nearest that can be, if a name is given for what no table can hold."""
    for kind in named:
        if kind not in USUAL_NAMES:
            known, hint = ", ".join(USUAL_NAMES), did_you_mean(kind, USUAL_NAMES)
            raise InputError("columns", expected=f"some of {known}", found=repr(kind), action=hint)


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "").replace(" ", "").replace("-", "")
