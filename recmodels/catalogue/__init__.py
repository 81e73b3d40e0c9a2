"""The data sets there are, and the settings of each. How their files are read belongs to `recmodels.raw`."""
