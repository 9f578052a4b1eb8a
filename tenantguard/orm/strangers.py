"""Engines without the barrier do not compile statements of tables that belong to tenants.

Nothing else tells a second engine on the same database from the protected one. So every table asks who renders it: a
scoped compiler may, and so may DDL and the printing of statements; any other compiler is that of an engine which would
answer with every tenant's rows. In a system context all may. It costs a look while a statement compiles, and nothing
when it runs. The question is put into SQLAlchemy's own class of tables, once, because annotated copies of a table do
not keep what is put into the table itself.
"""

from typing import Any, Final

from sqlalchemy import Insert, Table
from sqlalchemy.sql.compiler import WARN_LINTING, SQLCompiler

from tenantguard.context import current_system
from tenantguard.errors import UnprotectedEngine
from tenantguard.orm.classify import belongs_to_tenants

__all__ = ["ASKING", "install_stranger_check"]


def _refuse_strangers(table: object, visitor: Any) -> None:
    # Statements that are compiled for printing are not linted, and what was compiled so can't be executed.
    executes = isinstance(visitor, SQLCompiler) and visitor.statement is not None and visitor.linting & WARN_LINTING
    if executes and not hasattr(visitor, "vouched_text") and current_system() is None and belongs_to_tenants(table):
        raise UnprotectedEngine(
            f"The table {getattr(table, 'name', '')!r} is owned by tenants, and the engine that compiles the statement "
            "has no barrier.",
            mend='Use guard.protect(engine), or a block of system("why") for work across tenants.',
        )


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
    """Let every table of the process ask who renders it."""
    Table._compiler_dispatch = _asking_table  # type: ignore[method-assign]
    Insert._compiler_dispatch = _asking_insert  # type: ignore[method-assign]
