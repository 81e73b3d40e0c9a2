"""Recommendations and similar items from a checkpoint. Training and evaluation are not needed for it."""
