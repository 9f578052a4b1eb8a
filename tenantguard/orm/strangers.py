"""Engines without the barrier do not compile statements of tables that belong to tenants.

Nothing else tells a second engine on the same database from the protected one. So every table asks who renders it: a
scoped compiler may, and so may DDL and the printing of statements; any other compiler is that of an engine which would
answer with every tenant's rows. In a system context all may; but what compiled there may be kept by the engine's cache
and run outside, so it asks again whenever it runs. Otherwise it costs a look while a statement compiles, and nothing
when it runs. The question is put into SQLAlchemy's own class of tables, once, because annotated copies of a table do
not keep what is put into the table itself.
"""

import functools
from typing import Any, Final

from sqlalchemy import Insert, Table
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql.compiler import WARN_LINTING, SQLCompiler

from tenantguard.context import current_system
from tenantguard.errors import UnprotectedEngine
from tenantguard.orm.classify import belongs_to_tenants

__all__ = ["ASKING", "install_stranger_check"]


def _refuse_strangers(table: object, visitor: Any) -> None:
    # Statements that are compiled for printing are not linted, and what was compiled so can't be executed.
    executes = isinstance(visitor, SQLCompiler) and visitor.statement is not None and visitor.linting & WARN_LINTING
    if executes and not hasattr(visitor, "vouched_text") and belongs_to_tenants(table):
        name = str(getattr(table, "name", ""))
        if current_system() is None:
            raise _no_barrier(name)
        _ask_again(visitor, name)


class _LateRefusal(UnprotectedEngine, DontWrapMixin):
    """Raised where SQLAlchemy would wrap it together with the statement's values."""


def _no_barrier(name: str, kind: type[UnprotectedEngine] = UnprotectedEngine) -> UnprotectedEngine:
    return kind(
        f"The table {name!r} is owned by tenants, and the engine that compiles the statement has no barrier.",
        mend='Use guard.protect(engine), or a block of system("why") for work across tenants.',
    )


def _ask_again(compiled: Any, name: str) -> None:
    """Have a statement that compiles in a system context ask whenever it runs: the engine's cache keeps it."""
    if "construct_params" in compiled.__dict__:
        return
    original = compiled.construct_params

    @functools.wraps(original)
    def construct_params(*args: Any, **kwargs: Any) -> Any:
        if current_system() is None:
            raise _no_barrier(name, _LateRefusal)
        return original(*args, **kwargs)

    compiled.construct_params = construct_params


_render_table: Final[Any] = Table._compiler_dispatch
_render_insert: Final[Any] = Insert._compiler_dispatch


def _asking_table(self: Any, visitor: Any, **kwargs: Any) -> Any:
    _refuse_strangers(self, visitor)
    return _render_table(self, visitor, **kwargs)


def _asking_insert(self: Any, visitor: Any, **kwargs: Any) -> Any:
    # The target of an INSERT is written by its name, without being rendered itself.
    _refuse_strangers(self.table, visitor)
    return _render_insert(self, visitor, **kwargs)


ASKING: Final = (_asking_table, _asking_insert)
"""The ways in which tables and INSERTs are rendered: not ones that a construct brought along."""


def install_stranger_check() -> None:
    """Let every table of the process ask who renders it, also after a rendering of ``@compiles`` was taken back."""
    for kind, asking in ((Table, _asking_table), (Insert, _asking_insert)):
        for name in ("_compiler_dispatch", "_original_compiler_dispatch"):
            setattr(kind, name, asking)
