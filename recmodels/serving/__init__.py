"""Recommendations from a checkpoint."""
