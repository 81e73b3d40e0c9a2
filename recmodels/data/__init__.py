"""From raw files to split interactions: formats, catalogue, k-core, splits, table schemas."""
