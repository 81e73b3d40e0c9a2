"""The recommenders: one model, one readable file."""
