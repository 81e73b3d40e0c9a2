"""What exists: the Dagster assets, one module a stage, and what they share."""
