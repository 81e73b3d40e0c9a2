"""How rankings may be set up."""

from typing import Literal

Normalisation = Literal["shortlist", "row"]
"""Over what evidence has mean 0 and deviation 1: a user's shortlist, or all items."""
