"""Trained models as directories: written whole, read back with their digests checked. Needs no trainer."""
