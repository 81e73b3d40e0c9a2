"""Calibration of the best items of a trained model by evidence from the training rows."""
