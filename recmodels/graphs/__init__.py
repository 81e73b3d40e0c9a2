"""Neighbour tables, normalised sparse adjacencies and their propagation. What a model makes of them is its affair."""
