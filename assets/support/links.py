"""Addresses of the explorer, `recmodels explore`, as records show them: links that the user interface opens."""

import os
from urllib.parse import urlencode

import dagster as dg

EXPLORER_VARIABLE = "RECMODELS_EXPLORER"
EXPLORER_PORT = 3100
"""Where `recmodels explore` listens unless it is told another port."""


def explorer_link(path: str = "", **query: str | int) -> dg.UrlMetadataValue:
    """
    Return a link into the explorer.

    Its address is that of ``recmodels explore`` on this machine, or what ``RECMODELS_EXPLORER`` says where another
    machine's browsers are to follow the link.
    """
    address = os.environ.get(EXPLORER_VARIABLE) or f"http://127.0.0.1:{EXPLORER_PORT}"
    text = urlencode(query)
    return dg.MetadataValue.url(f"{address.rstrip('/')}/{path}{'?' if text else ''}{text}")
