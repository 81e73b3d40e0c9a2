"""Files, digests, processes and SQLite: what touches the machine and knows nothing of recommendation."""
