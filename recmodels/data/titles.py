"""What items are called where people read of them."""

import polars as pl

WORDS = 10
"""Of a description that stands for a title, the words that are shown."""

_CHARACTERS = 80
_READABLE = r"[\p{L}\p{N}]"


def shown_titles(items: pl.DataFrame) -> pl.Series:
    """
    Return what to call each item: its title, or else the first words of its description, or else its asin.

    A title or description without a letter or digit counts as none. For the eye alone: the table of items keeps its
    empty titles, so that nothing made up goes into a profile or a vector.

    Parameters
    ----------
    items
        Columns asin and title, and description where it is known, such as the table `items`; nulls count as absent.

    Returns
    -------
    Strings under the name `title`, in the order of the items.

    Examples
    --------
    >>> items = pl.DataFrame(
    ...     {
    ...         "asin": ["B1", "B2", "B3"],
    ...         "title": ["A drum", "", None],
    ...         "description": ["Loud.", "A flute of cherry wood, with a case and a cleaning rod.", ""],
    ...     }
    ... )
    >>> shown_titles(items).to_list()
    ['A drum', 'A flute of cherry wood, with a case and a…', 'B3']
    """
    description = pl.col("description") if "description" in items.columns else pl.lit(None, pl.String)
    words = description.str.extract(rf"^\s*((?:\S+\s+){{0,{WORDS - 1}}}\S+)").str.slice(0, _CHARACTERS)
    shortened = pl.when(words != description.str.strip_chars()).then(words + "…").otherwise(words)
    readable = [pl.when(text.str.contains(_READABLE)).then(text) for text in (pl.col("title"), shortened)]
    return items.select(pl.coalesce(*readable, "asin").alias("title"))["title"]
