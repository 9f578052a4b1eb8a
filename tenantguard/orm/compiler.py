"""The scoped compiler of one engine: a dialect's own compiler with the barrier's parts mixed in.

It compiles in one of two modes, fixed when it is made: scoped, or unscoped in an open system context. The
execution context (`tenantguard.orm.execution`) compares the mode with the moment of execution.
"""

from typing import Any, ClassVar, Final

from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ReleaseSavepointClause, RollbackToSavepointClause, SavepointClause

from tenantguard.context import current_system
from tenantguard.orm.writes import WritingMixin

__all__ = ["SAVEPOINTS", "ScopedCompiler", "scoped_compiler"]

SAVEPOINTS: Final = (SavepointClause, RollbackToSavepointClause, ReleaseSavepointClause)


class ScopedCompiler(WritingMixin):
    """Mixin with the state of one compilation. `scoped_compiler` joins it with a dialect's compiler."""

    base: ClassVar[type[SQLCompiler]]
    vouched_text: str = ""

    def __init__(self, dialect: Any, statement: Any, *args: Any, **kwargs: Any) -> None:
        self.in_system = current_system() is not None
        # Without a statement it renders the parts of DDL, which the execution context allows in system contexts only.
        self.unscoped = self.in_system or statement is None
        self.plans = []
        self.tenant_binds = {}
        self.checked_binds = []
        self.noted_links = []
        self.relied_ctes = []
        self.named_tables = set()
        self.cte_names = set()
        self.baked = False
        if not self.unscoped:
            self.vouch_for_root(statement)
        super().__init__(dialect, statement, *args, **kwargs)
        if not self.unscoped:
            self.refuse_shadowed_tables(self.named_tables)
        self.vouched_text = getattr(self, "string", "")
        # A parameter that did not become one stands in the text as a value.
        scope = [(self.bind_names.get(bind), convert) for bind, convert in self.tenant_binds.values()]
        write = [
            (item if isinstance(item, str) else self.bind_names.get(item), owned.convert)
            for item, owned in self.checked_binds
        ]
        links = self.link_checks_of()
        self.baked = self.baked or links is None or any(name is None for name, _ in scope + write)
        self.link_checks = tuple(links or ())
        self.scope_checks = tuple((name, convert) for name, convert in scope if name is not None)
        self.write_checks = tuple((name, convert) for name, convert in write if name is not None)
        self.writes = bool(self.write_checks or self.link_checks or getattr(self, "isdelete", False))
        self.sound = not (self.in_system or self.unscoped or self.baked or isinstance(statement, SAVEPOINTS))


def scoped_compiler(base: type[SQLCompiler], functions: frozenset[str]) -> type[Any]:
    """Return a scoped compiler class for a dialect's compiler class."""
    return type(
        f"Scoped{base.__name__}",
        (ScopedCompiler, base),
        {"base": base, "allowed_functions": functions, "__module__": __name__},
    )
