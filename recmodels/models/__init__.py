"""
The recommenders: the registry, what they read, how they are configured, what they are built of.

One model is one file of `recmodels.models.zoo`. The loop that trains them belongs to `recmodels.training`.
"""
