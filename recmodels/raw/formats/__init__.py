"""One file for each format of raw files."""
