"""One file for each format of raw files; `registry` lists them, `base` says what a format is."""
