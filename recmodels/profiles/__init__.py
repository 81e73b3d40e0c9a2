"""
Profiles of items and users: what is shown to a writer, prompts, checks of answers, and a writer without a model.

How a language model is reached belongs to `recmodels.llm`.
"""
