"""In this process: one block after the other, each with all cores."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from recmodels.compute.base import Block, Compute, Group, Result


class LocalGroup(Group):
    """Parts in this process, asked one after the other."""

    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts

    def call(self, method: str, *arguments: Any, each: Sequence[Any] | None = None) -> list[Any]:
        """Call a method of every part and return the answers in the order of the parts."""
        if each is None:
            return [getattr(part, method)(*arguments) for part in self._parts]
        return [getattr(part, method)(own, *arguments) for part, own in zip(self._parts, each, strict=True)]

    def __exit__(self, *exception: object) -> None:
        """Let go of the parts."""
        self._parts = []


class Local(Compute):
    """The process that asks."""

    engine = "local"

    def map(
        self, function: Callable[[Any, Block], Result], blocks: Iterable[Block], *, shared: Any = None, gpus: float = 0
    ) -> Iterator[Result]:
        """Yield the result of every block in order."""
        for block in blocks:
            yield function(shared, block)

    def group(self, factory: Callable[[Any, Block], Any], parts: Iterable[Block], *, shared: Any = None) -> LocalGroup:
        """Make every part here."""
        return LocalGroup([factory(shared, part) for part in parts])


LOCAL = Local()
"""What stages use where nobody names another place."""
