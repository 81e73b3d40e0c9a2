"""From raw rows to tables: one row a pair, the k-core, ids, splits. What files look like belongs to `recmodels.raw`."""
