"""Structured optimal transport and the augmentation of the training set."""
