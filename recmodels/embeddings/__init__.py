"""Texts in, vectors of one width out: encoders, and the store of what they made. Neighbours are `recmodels.graphs`."""
