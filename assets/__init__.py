"""What exists: the Dagster assets, one module a stage, and what they share."""

import gc
import warnings

import dagster as dg

# Back-fill policies, the mapping back from seeds and checks by partition are marked beta or preview; Dagster is pinned.
for category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=category)

# What Dagster made while it was imported lives as long as the process. Without this, the garbage collector goes through
# all of it again and again while the assets are declared: a fifth of the time in which the code server starts.
gc.freeze()
