"""Structured optimal transport, and the augmentation of the training set by its plan. Works on any sparse structure."""
