"""The scoped compiler of one engine: a dialect's own compiler with the barrier's parts mixed in.

It compiles in the mode of what is bound, fixed when it is made: scoped to one tenant, narrowed further, to a set of
tenants, or unscoped in an open system context. The execution context (`tenantguard.orm.execution`) compares the mode
with that of the moment of execution.
"""

from typing import Any, ClassVar, Final

from sqlalchemy import FromClause
from sqlalchemy.dialects.mysql.base import MySQLCompiler
from sqlalchemy.orm.context import _MapperEntity
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ReleaseSavepointClause, RollbackToSavepointClause, SavepointClause

from tenantguard.binding import SYSTEM_MODE, current_binding
from tenantguard.errors import BarrierError, StatementRefused
from tenantguard.orm.key_types import keeps_text
from tenantguard.orm.lifts import Lifts
from tenantguard.orm.mysql import MySQLMixin
from tenantguard.orm.predicates import Predicates
from tenantguard.orm.shapes import shape_of
from tenantguard.orm.writes import WritingMixin

__all__ = ["SAVEPOINTS", "ScopedCompiler", "scoped_compiler"]

SAVEPOINTS: Final = (SavepointClause, RollbackToSavepointClause, ReleaseSavepointClause)


class ScopedCompiler(WritingMixin):
    """Mixin with the state of one compilation. `scoped_compiler` joins it with a dialect's compiler."""

    base: ClassVar[type[SQLCompiler]]
    vouched_text: str = ""
    leaves_place_open: bool = False
    """Whether the schema of tables without one is filled in when the statement runs."""

    def __init__(self, dialect: Any, statement: Any, *args: Any, **kwargs: Any) -> None:
        self._begin(statement, fenced=False)
        try:
            if not self.unscoped:
                self.vouch_for_root(statement)
            super().__init__(dialect, statement, *args, **kwargs)
            if self.met_child and self.met_failing and dialect.name == "postgresql":
                self.__dict__.clear()
                self._begin(statement, fenced=True)
                super().__init__(dialect, statement, *args, **kwargs)
            if not self.unscoped:
                self.refuse_shadowed_tables(self.named_tables)
        except BarrierError as error:
            raise error.within(shape_of(statement)) from None
        self.vouched_text = getattr(self, "string", "")
        self.leaves_place_open = not kwargs.get("render_schema_translate") and None in (self.schema_translate_map or ())
        self._settle(statement)

    def _begin(self, statement: Any, *, fenced: bool) -> None:
        binding = current_binding()
        self.mode = None if binding is None else binding.mode
        self.in_system = self.mode == SYSTEM_MODE
        # Without a statement it renders the parts of DDL, which the execution context allows in system contexts only.
        self.unscoped = self.in_system or statement is None
        self.raw = binding is not None and binding.raw is not None
        self.used_raw = False
        self.fenced, self.met_child, self.met_failing = fenced, False, False
        self.plans = []
        self.predicates = Predicates(self.mode)
        self.lifts = Lifts(getattr(statement, "_with_options", ()))
        self.checked_binds = []
        self.moved_binds = []
        self.noted_links = []
        self.null_binds = []
        self.relied_ctes = []
        self.named_tables = set()
        self.cte_names = set()
        self.baked = False

    def _settle(self, statement: Any) -> None:
        """Sum up what is to be looked at when the statement runs."""
        if (self.used_raw or self.lifts) and self._gives_entities(statement):
            raise StatementRefused(
                "A statement that reads past the barrier would put what it reads into the session.",
                mend="Select columns instead of entities, or read their keys so and the entities by their keys.",
            ).within(shape_of(statement))
        # A parameter that did not become one stands in the text as a value.
        scope = [(self.bind_names.get(bind), key, reads) for bind, key, reads in self.predicates.binds]
        write = [(self._name_of(item), key) for item, key in self.checked_binds]
        nulls = [self._name_of(item) for item in self.null_binds]
        moves = [(self._name_of(item), kind) for item, kind in self.moved_binds]
        links = self.link_checks_of()
        self.baked = (
            self.baked or links is None or None in nulls or any(one[0] is None for one in scope + write + moves)
        )
        self.link_checks = tuple(links or ())
        self.null_checks = tuple(name for name in nulls if name is not None)
        self.scope_checks = tuple((name, key, reads) for name, key, reads in scope if name is not None)
        self.write_checks = tuple((name, key) for name, key in write if name is not None)
        self.move_checks = tuple((name, kind) for name, kind in moves if name is not None)
        self.writes = bool(
            self.write_checks or self.link_checks or self.null_checks or self.move_checks or self.isdelete
        )
        # What the fast way of the execution context compares by itself, and whether that is all.
        self.plain_names = tuple(
            name for name, key, reads in self.scope_checks if keeps_text(key.convert) and not reads
        )
        self.more_checks = self.writes or len(self.plain_names) < len(self.scope_checks)
        sound = not (self.mode is not None or self.unscoped or self.baked or self.lifts)
        self.sound_text = self.vouched_text if sound and not isinstance(statement, SAVEPOINTS) else None

    def _name_of(self, item: Any) -> str | None:
        return item if isinstance(item, str) else self.bind_names.get(item)

    def _gives_entities(self, statement: Any) -> bool:
        # Of RETURNING the ORM makes entities in a statement of its own, which comes later.
        returned = [one for one in getattr(statement, "_returning", None) or () if isinstance(one, FromClause)]
        state: Any = self.compile_state
        return bool(returned) or any(_is_entity(one) for one in getattr(state, "_entities", ()) or ())


def _is_entity(entity: Any) -> bool:
    return isinstance(entity, _MapperEntity) or any(_is_entity(one) for one in getattr(entity, "_entities", ()))


def scoped_compiler(base: type[SQLCompiler], functions: frozenset[str]) -> type[Any]:
    """Return a scoped compiler class for a dialect's compiler class."""
    bases = (MySQLMixin, ScopedCompiler, base) if issubclass(base, MySQLCompiler) else (ScopedCompiler, base)
    return type(
        f"Scoped{base.__name__}",
        bases,
        {"base": base, "allowed_functions": functions, "__module__": __name__},
    )
