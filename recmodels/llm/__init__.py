"""A client of language models: servers, local weights, retries, cached answers. What is asked is not known here."""
