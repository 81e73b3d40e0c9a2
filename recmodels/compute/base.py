"""
What a stage asks of the place where it is computed: work on blocks, and parts that are asked again and again.

Stages cut their work by the data and never by the cluster, and take results in the order of the blocks: so a laptop and
a cluster of any size make the same bytes. What runs there are functions and classes of modules, never closures, and
nothing that is handed over, there or back, is changed: arrays that crossed processes cannot be.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

Block = TypeVar("Block")
Result = TypeVar("Result")


class Group(AbstractContextManager["Group"], ABC):
    """
    Parts that stay where they were made, to be asked many times: `with compute.group(...) as group`.

    The answer of a part depends on what it was made of and on the arguments alone, not on what it was asked before:
    a part that is lost with its machine is made anew and asked again.
    """

    @abstractmethod
    def call(self, method: str, *arguments: Any, each: Sequence[Any] | None = None) -> list[Any]:
        """
        Call a method of every part and return the answers in the order of the parts.

        Parameters
        ----------
        method
            Its name.
        arguments
            What every part is given.
        each
            What each part is given before that, one value a part.
        """


class Compute(ABC):
    """
    A place where blocks are computed.

    Attributes
    ----------
    engine
        Its name in records: ``local`` or ``ray``.
    """

    engine: str

    @abstractmethod
    def map(
        self, function: Callable[[Any, Block], Result], blocks: Iterable[Block], *, shared: Any = None, gpus: float = 0
    ) -> Iterator[Result]:
        """
        Yield ``function(shared, block)`` of every block in order, while later ones are computed.

        Parameters
        ----------
        function
            A function of a module, pure, free to use all cores it is given.
        blocks
            What each call is given; taken as they are needed.
        shared
            What all calls are given; sent to each machine once.
        gpus
            Of a cluster's GPUs, how many a call needs to itself. In this process a call finds those that are there.

        Raises
        ------
        RecmodelsError
            What the function raised, as itself. It is not called again for that.
        """

    @abstractmethod
    def group(self, factory: Callable[[Any, Block], Any], parts: Iterable[Block], *, shared: Any = None) -> Group:
        """
        Make ``factory(shared, part)`` of every part, where they can be asked through a `Group`.

        Parts are cut by the data: there may be more of them than processors, which then hold several each.
        """

    def record(self) -> dict[str, int | str]:
        """Return what the materialisation says of it: the engine and, on a cluster, its nodes and what was done."""
        return {"engine": self.engine}
