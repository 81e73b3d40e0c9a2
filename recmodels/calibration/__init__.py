"""
A new order of the best items of a trained model, by evidence from the training rows, with reasons for each item.

The ranking that comes of it belongs to `recmodels.ranking`, so that checkpoints can hold it.
"""
