"""The one trainer of all models: negatives, optimisation, early stopping, checkpoints."""
