"""The errors a caller can act upon. Anything else that escapes is a bug."""

import copyreg
from typing import Any


class RecmodelsError(Exception):
    """Base of every error this library raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied by what it holds, not by its constructor: it crosses processes whatever arguments that takes."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # pyright: ignore[reportAttributeAccessIssue]


class PermanentFailure(RecmodelsError):
    """Trying again cannot help: the input, the configuration or the stored data must change first."""


class InputError(PermanentFailure):
    """
    Data or configuration is not what it has to be.

    Parameters
    ----------
    where
        File, table, field or option, as exactly as it is known.
    expected, found
        What should have been there, and what was.
    action
        What the reader can do about it.
    """

    def __init__(self, where: str, *, expected: str, found: str, action: str = "") -> None:
        self.where = where
        self.expected = expected
        self.found = found
        self.action = action
        super().__init__(f"{where}: expected {expected}, found {found}." + (f" {action}" if action else ""))


class MissingObject(PermanentFailure):
    """A stored table or checkpoint that a record names is gone or damaged."""


class TransientFailure(RecmodelsError):
    """A passing fault (network, busy server): the same call may succeed later."""
