"""Puts a mutant into a process that has imported the package already, by exchanging the code of its functions.

That is possible for what stands in functions. What stands in a module or class itself is read once, when it is
imported; a mutant of such a part needs a process that imports a changed copy of the package.
"""

import gc
import inspect
from collections import defaultdict
from collections.abc import Iterator
from types import CodeType, FunctionType

from tests.mutations.derived import Mutant, path_of

__all__ = ["is_in_functions", "patch"]


def _compiled(mutant: Mutant) -> tuple[CodeType, CodeType]:
    path = path_of(mutant.module)
    return compile(path.read_text(), str(path), "exec"), compile(mutant.code, str(path), "exec")


def _by_name(code: CodeType) -> dict[str, list[CodeType]]:
    found: dict[str, list[CodeType]] = defaultdict(list)
    for one in _all(code):
        found[one.co_qualname].append(one)
    return found


def _all(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all(constant)


def _pairs(mutant: Mutant) -> Iterator[tuple[CodeType, CodeType]]:
    old, new = map(_by_name, _compiled(mutant))
    for name, codes in old.items():
        yield from zip(codes, new.get(name, ()), strict=False)


def _shape(code: CodeType) -> tuple[object, ...]:
    constants = [one for one in code.co_consts if not isinstance(one, CodeType)]
    return code.co_code, code.co_names, constants


def is_in_functions(mutant: Mutant) -> bool:
    """True if a mutant changes functions alone, and none in what it closes over."""
    return all(
        one.co_freevars == other.co_freevars if one.co_flags & inspect.CO_OPTIMIZED else _shape(one) == _shape(other)
        for one, other in _pairs(mutant)
    )


def patch(mutant: Mutant) -> int:
    """Exchange the code of every function of the mutant's module that lives in this process.

    Returns:
        How many were changed.
    """
    path = str(path_of(mutant.module))
    new = {(one.co_qualname, one.co_firstlineno): other for one, other in _pairs(mutant)}
    changed = 0
    gc.unfreeze()  # functions that the tests' conftest left out of the collector's work are not listed
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and function.__code__.co_filename == path:
            code = function.__code__
            other = new[code.co_qualname, code.co_firstlineno]
            changed += (
                code.co_code != other.co_code or code.co_consts != other.co_consts or code.co_names != other.co_names
            )
            function.__code__ = other
    return changed
