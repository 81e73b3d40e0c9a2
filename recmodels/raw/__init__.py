"""
Raw files: fetched or generated, described by a manifest, read; what cannot be read is kept with a reason.

What is made of the rows belongs to `recmodels.data`.
"""
