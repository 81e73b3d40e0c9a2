"""A small shop and a language model server on a loopback port."""

from profile_shop import cache, llm, shop

__all__ = ["cache", "llm", "shop"]
