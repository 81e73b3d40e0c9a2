"""The data sets there are."""
