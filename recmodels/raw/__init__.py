"""From raw files to rows: fetching, reading, refusing."""
