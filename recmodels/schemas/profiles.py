"""Profiles of items and users, and the vectors of profiles and images."""

import dataframely as dy

from recmodels.schemas.columns import ItemRows, UserRows, Vector


class ItemProfiles(ItemRows):
    """One row an item, in id order; `source` names the back-end that wrote it, or ``fallback``."""

    profile = dy.String(description="What was written")
    source = dy.String(min_length=1, description="Who wrote it, or fallback")


class UserProfiles(UserRows):
    """One row a user, in id order; `source` names the back-end that wrote it, or ``fallback``."""

    profile = dy.String(description="What was written")
    source = dy.String(min_length=1, description="Who wrote it, or fallback")


class ItemEmbeddings(ItemRows):
    """One row an item, in id order; without `present` the vector is a stand-in. No rows: the modality is absent."""

    embedding = Vector(description="The vector")
    present = dy.Bool(description="Whether the vector is its own, not a stand-in")


class UserEmbeddings(UserRows):
    """One row a user, in id order; without `present` the vector is that of the empty text."""

    embedding = Vector(description="The vector")
    present = dy.Bool(description="Whether the vector is its own, not a stand-in")
