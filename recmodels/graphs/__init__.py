"""Neighbour tables, normalised sparse adjacencies and their propagation."""
