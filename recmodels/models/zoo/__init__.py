"""The models, one a file: its `Config` and its `Model`, with the paper's equations beside the code."""
