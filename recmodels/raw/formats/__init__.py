"""The formats of raw files, one a file: from a path to rows and rejected lines, nothing else."""
