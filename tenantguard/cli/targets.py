"""How commands find the models that they are told about: ``package.module``, or ``package.module:attribute``.

The module is imported as the app imports it. What it prints goes to stderr, since stdout is for what the command makes.
Of its errors only those are shown whose text is made of names; other texts may hold a URL with a password.
"""

import contextlib
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click
from sqlalchemy import MetaData

from tenantguard.errors import TenantGuardError

__all__ = ["importable_from", "metadata_of"]

_HERE: Final = __file__
_INSTALLED: Final = tuple(sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "purelib", "platlib"))
_TELLING: Final = (ImportError, NameError, SyntaxError, TenantGuardError)
"""Errors whose text is made of names, and never of values."""


@contextlib.contextmanager
def importable_from(directory: Path) -> Iterator[None]:
    """Let modules of a directory be imported in a block, before all others, as ``python -m`` does.

    Args:
        directory: where the app is.
    """
    before = list(sys.path)
    sys.path.insert(0, str(directory.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before


def metadata_of(target: str) -> MetaData:
    """Return the ``MetaData`` that a target means.

    Args:
        target: ``module:attribute``, where the attribute is a MetaData, or anything that has one: a declarative base, a
            model, a table, a registry, a module. Without an attribute the module must have one alone.

    Raises:
        click.UsageError: there is none, or there are several.
    """
    name, colon, path = target.partition(":")
    if not all(part.isidentifier() for part in name.split(".")) or (colon and not path):
        raise click.UsageError(f"{target!r} is no target. Write package.module or package.module:attribute.")
    module = _imported(name)
    found = _attribute(module, name, path) if path else _only(module, name)
    if not found.tables:
        raise click.UsageError(
            f"{target} has no tables: the modules with the models are not imported by it. Name the module that does."
        )
    return found


def _imported(name: str) -> ModuleType:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an app does when it is imported
        raise click.UsageError(_explained(name, error)) from None


def _explained(name: str, error: BaseException) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{name}.".startswith(f"{missing}."):
        return f"There is no module {missing}. Modules are looked for in --app-dir and in the environment."
    text = f"The module {name} can't be imported: {type(error).__name__}"
    telling = isinstance(error, _TELLING) or (isinstance(error, KeyError) and _read_environment(error))
    if telling:
        text += f": {getattr(error, 'msg', None) or str(error)}"
    if isinstance(error, SyntaxError):
        return f"{text} ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if not frame.filename.startswith((_HERE, importlib.__file__, *_INSTALLED))]
    if own or frames:
        place = (own or frames)[-1]
        text += f" ({place.filename}, line {place.lineno})"
    if not telling:
        text += f". Its text is not shown, since it may hold secrets: python -c 'import {name}' shows it."
    return text


def _read_environment(error: KeyError) -> bool:
    """True if a variable of the environment is missing, whose name is no secret."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).name == "<frozen os>"


def _metadata(thing: Any) -> MetaData | None:
    found = thing if isinstance(thing, MetaData) else getattr(thing, "metadata", None)
    return found if isinstance(found, MetaData) else None


def _attribute(module: ModuleType, name: str, path: str) -> MetaData:
    thing: Any = module
    for part in path.split("."):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            raise click.UsageError(f"{name} has no {path}.{_choice(name, _candidates(module))}") from None
    if isinstance(thing, ModuleType):
        return _only(thing, thing.__name__)
    found = _metadata(thing)
    if found is None:
        choice = _choice(name, _candidates(module))
        raise click.UsageError(f"{name}:{path} is of type {type(thing).__name__}, which has no MetaData.{choice}")
    return found


def _candidates(module: ModuleType) -> dict[str, MetaData]:
    """Return the names of a module that lead to a MetaData, the best for each: its own, or its base's."""
    found: dict[int, tuple[tuple[bool, int], str, MetaData]] = {}
    for name, thing in vars(module).items():
        metadata = None if name.startswith("__") else _metadata(thing)
        if metadata is None:
            continue
        depth = len(thing.__mro__) if isinstance(thing, type) else 0
        is_base = isinstance(thing, MetaData) or (isinstance(thing, type) and not hasattr(thing, "__table__"))
        rank = (not is_base, depth)
        if id(metadata) not in found or rank < found[id(metadata)][0]:
            found[id(metadata)] = (rank, name, metadata)
    return {name: metadata for _, name, metadata in found.values()}


def _only(module: ModuleType, name: str) -> MetaData:
    every = _candidates(module)
    candidates = {found: metadata for found, metadata in every.items() if metadata.tables} or every
    if len(candidates) != 1:
        problem = "has no MetaData and no declarative base" if not candidates else "has several MetaData"
        raise click.UsageError(f"{name} {problem}.{_choice(name, candidates)}")
    return next(iter(candidates.values()))


def _choice(name: str, candidates: dict[str, MetaData]) -> str:
    if not candidates:
        return " Name the module that has the models, and the attribute: package.module:attribute."
    return f" Choose: {', '.join(f'{name}:{candidate}' for candidate in sorted(candidates))}."
