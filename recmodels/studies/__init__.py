"""
Studies: which trained things are compared on which data sets, what was measured of them, and the tables of that.

Everything here works on plain rows of results, whoever made them: the asset graph, or a machine beside it. How a model
is trained and measured, and when, is decided elsewhere; a variant is `recmodels.models.variants`.
"""
