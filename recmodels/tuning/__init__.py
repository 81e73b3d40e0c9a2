"""
The search for a model's settings on the validation rows: what is tried, in which order, and what came of each try.

How one try is trained belongs to `recmodels.training`. What is searched has no test rows: `TrainingData` has no place
for them. Only `study` and `tune` import Optuna.
"""
