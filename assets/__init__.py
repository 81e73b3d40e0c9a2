"""What exists: the Dagster assets, one module a stage, and what they share."""

import warnings

import dagster as dg

# Back-fill policies, the mapping back from seeds and checks by partition are marked beta or preview; Dagster is pinned.
for category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=category)
