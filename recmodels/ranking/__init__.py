"""From scores to the best items of a user: what evaluation, early stopping, checkpoints and serving share."""
