"""A client of language models that knows nothing of recommendation."""
