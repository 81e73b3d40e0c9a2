"""
The explorer: one page and a JSON API over finished results, for `recmodels explore`.

It reads what runs have recorded and stores nothing. What it tells is worked out in `recmodels.serving`; which result is
current is known to `assets.serving`.
"""
