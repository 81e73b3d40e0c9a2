"""Figures that documents show beside those of the studies (`recmodels results`). Timings are for `benchmarks/`."""
