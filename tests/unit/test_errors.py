"""Every error of the library survives the way between processes: the same text, the same attributes."""

import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Iterator

import pytest

import recmodels
from recmodels.errors import InputError, TransientFailure
from recmodels.llm.base import Busy

ARGUMENTS = {"where": "table", "expected": "rows", "found": "none", "action": "Add some.", "retry_after": 2.5}
"""What constructors are given by the name of the parameter."""


def _errors() -> Iterator[type[BaseException]]:
    for module in pkgutil.walk_packages(recmodels.__path__, "recmodels."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, BaseException) and kind.__module__ == module.name:
                yield kind


def _made(kind: type[BaseException]) -> BaseException:
    if not inspect.isfunction(kind.__init__):
        return kind("what happened", 3)
    parameters = list(inspect.signature(kind).parameters.values())
    named = {p.name: ARGUMENTS.get(p.name, p.name) for p in parameters if p.kind is p.KEYWORD_ONLY}
    return kind(*(ARGUMENTS.get(p.name, p.name) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD), **named)


@pytest.mark.parametrize("kind", list(_errors()))
def test_every_error_survives_pickling(kind: type[BaseException]) -> None:
    error = _made(kind)
    error.add_note("in the second block")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 made here
    assert type(copy) is kind
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))


def test_the_errors_with_constructors_of_their_own_are_among_them() -> None:
    found = set(_errors())
    assert {InputError, Busy, TransientFailure} < found
