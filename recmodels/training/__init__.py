"""
The one loop that trains all models: negatives, optimisation, early stopping, the state to resume from.

What a model computes belongs to `recmodels.models`, what is kept of it to `recmodels.checkpoints`.
"""
