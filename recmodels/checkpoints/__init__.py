"""Trained models as directories."""
