"""Wall one for what writes: UPDATE, DELETE and INSERT, and which of a database's compilers the barrier can stand in.

The rows that an UPDATE or DELETE changes are the tenant's own, whatever its criteria say; what it reads to find them is
scoped as any SELECT is (`tenantguard_django.orm.compilers`). What is written is looked at by
`tenantguard_django.orm.writes` while its statement is made.
"""

from typing import Any, Final

from django.core.exceptions import FullResultSet
from django.db.models.sql import compiler as django_compilers

from tenantguard.binding import current_binding, raw_binding
from tenantguard.errors import StatementRefused
from tenantguard_django.orm.cascades import reach_of_delete
from tenantguard_django.orm.classify import nothing_to_guard
from tenantguard_django.orm.compilers import ScopedCompiler
from tenantguard_django.orm.criteria import guarded
from tenantguard_django.orm.inserts import are_plain, keep_text, known_text, plain_rows
from tenantguard_django.orm.lifts import LIFTS, MOVE, find_lift
from tenantguard_django.orm.vouching import RAW_MEND, fault_of, sound_classes
from tenantguard_django.orm.writes import InsertCheck, check_update, conflict_target

__all__ = ["scoped_compiler"]


class ScopedChange(ScopedCompiler):
    """What UPDATE and DELETE share: the query that Django finds their rows by, where there are joins, has their rights.

    No other has them, such as a subquery of the app's that was made of the same query set.
    """

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        if LIFTS not in self.query.__dict__:
            return super().as_sql(*args, **kwargs)
        guard = self.connection.tenantguard
        before, guard.writing = guard.writing, None
        try:
            return super().as_sql(*args, **kwargs)
        finally:
            guard.writing = before

    def _finds_rows(self, where: Any) -> None:
        """Take the query in Django's own ``pk IN (…)``."""
        self.connection.tenantguard.writing = getattr(where.children[0], "rhs", None)

    def _check_lifts(self, query: Any) -> None:
        pass


class ScopedDelete(ScopedChange):
    """Mixin for DELETE."""

    def _check_lifts(self, query: Any) -> None:
        if find_lift(query, MOVE, query.get_meta().db_table) is not None:
            raise StatementRefused("move_rows() removes no rows.", mend="Delete them without it.")

    def _as_sql(self, query: Any) -> tuple[str, tuple[Any, ...]]:
        name = self._quoted(query.base_table)
        found = self.scoped(query.base_table, name, write=True)
        self._check_reach(query.base_table)
        self.connection.tenantguard.known.clear()  # another tenant's row may get the key of one that was removed
        if LIFTS in self.query.__dict__ and query is not self.query:
            self._finds_rows(query.where)
        where = query.where if found is None else guarded(found, query.where)
        delete = f"DELETE FROM {name}"  # noqa: S608 - a quoted name
        try:
            sql, params = self.compile(where)
        except FullResultSet:
            return delete, ()
        return f"{delete} WHERE {sql}", tuple(params)

    def _check_reach(self, table: str) -> None:
        binding = raw_binding()
        if binding is not None and binding.permits:
            binding = current_binding()
        if nothing_to_guard(binding) or (binding is not None and binding.system is not None):
            return
        narrowed = binding is not None and binding.identity is not None and bool(binding.identity.dimensions)
        field = reach_of_delete(table, narrowed=narrowed)
        if field is not None:
            self._refuse(
                f"a DELETE after which the database itself changes rows by {field}, where no predicate reaches",
                'Use a cascade of Django\'s own, or delete in a block of system("why").',
            )


class ScopedUpdate(ScopedChange):
    """Mixin for UPDATE."""

    _found: tuple[str, list[object]] | None = None

    def compile(self, node: Any) -> tuple[str, Any]:
        if self._found is not None and node is self.query.where:
            found, self._found = self._found, None
            node = guarded(found, node)
        if node.__class__ not in sound_classes and (fault := fault_of(node, self.connection)) is not None:
            self._refuse(fault, RAW_MEND)
        return super(ScopedCompiler, self).compile(node)  # type: ignore[misc]

    def pre_sql_setup(self, *args: Any, **kwargs: Any) -> Any:
        query = self.query
        where = query.where
        made = super().pre_sql_setup(*args, **kwargs)  # type: ignore[misc]
        if LIFTS in query.__dict__ and query.where is not where:
            self._finds_rows(query.where)
        return made

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        query = self.query
        table = query.get_meta().db_table
        self._found = self.scoped(table, self.connection.ops.quote_name(table), write=True)
        self.pending = self._found is not None
        if query.values or LIFTS in query.__dict__:
            check_update(self)
        above = super() if LIFTS in query.__dict__ else super(ScopedChange, self)
        made = above.as_sql(*args, **kwargs)
        if made[0] and query.base_table != table:
            raise StatementRefused("The statement is of an unknown shape.", mend="Report the versions in use.")
        return made

    def execute_returning_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Run it, and return columns of the rows: how Django 6.0 and newer save a row with expressions in it."""
        return self._run(super().execute_returning_sql, *args, **kwargs)  # type: ignore[misc]


class ScopedInsert(ScopedCompiler):
    """Mixin for INSERT."""

    returning_params: Any
    plain_rows = 0
    """How many rows of plain values the database's own compiler writes without anything of its own."""
    _check_of_rows: InsertCheck

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        query = self.query
        check = self._check_of_rows = InsertCheck(self)
        check.run()
        made = known_text(self, check)
        if made is None:
            made = super(ScopedCompiler, self).as_sql(*args, **kwargs)  # type: ignore[misc]
            keep_text(self, made)
        check.check_links()
        if query.update_fields and (target := conflict_target(self, check)) is not None:
            made = [self._narrowed(sql, params, *target) for sql, params in made]
        if self.outermost:
            made = [(sql, tuple(params)) for sql, params in made]
            self._vouch(made)
        assert query is self.query
        return made

    def assemble_as_sql(self, fields: Any, value_rows: Any) -> Any:
        """Look at what is sent, and write rows of plain values in one go.

        Django does the same after it has asked each value for SQL of its own.
        """
        self._check_of_rows.look(fields, value_rows)
        if len(value_rows) > self.plain_rows or not are_plain(fields, value_rows):
            return super().assemble_as_sql(fields, value_rows)  # type: ignore[misc]
        return [("%s",) * len(fields)] * len(value_rows), value_rows

    def _narrowed(
        self, sql: str, params: Any, suffix: str, where: str, given: list[object]
    ) -> tuple[str, tuple[Any, ...]]:
        before, found, after = sql.rpartition(suffix)
        if not found or self.returning_params:
            raise StatementRefused("An upsert is written in an unknown way.", mend="Report the versions in use.")
        return f"{before}{suffix} WHERE {where}{after}", (*params, *given)

    def execute_sql(self, returning_fields: Any = None) -> Any:
        query = self.query
        if not query.update_fields:
            return self._run(super(ScopedCompiler, self).execute_sql, returning_fields)  # type: ignore[misc]
        # What an upsert has written is asked for in any case, since another tenant's rows in the way are left alone.
        asked = returning_fields
        if not asked and self.connection.features.can_return_rows_from_bulk_insert:
            asked = [query.get_meta().local_concrete_fields[0]]
        rows = self._run(super(ScopedCompiler, self).execute_sql, asked)  # type: ignore[misc]
        if asked:
            InsertCheck.compare_returned(self, rows)
        return rows if returning_fields else []


_MIXINS: Final[dict[str, type]] = {
    "SQLCompiler": ScopedCompiler,
    "SQLAggregateCompiler": ScopedCompiler,
    "SQLInsertCompiler": ScopedInsert,
    "SQLDeleteCompiler": ScopedDelete,
    "SQLUpdateCompiler": ScopedUpdate,
}
_made: Final[dict[type, type]] = {}


_HOOKS: Final = (
    "as_sql",
    "_as_sql",
    "compile",
    "execute_returning_sql",
    "execute_sql",
    "get_combinator_sql",
    "get_from_clause",
    "get_qualify_sql",
)
"""What a database's own compilers may not do otherwise than Django's, since the mixins stand there."""


def _same_hooks(base: type, own: type) -> bool:
    return all(getattr(base, hook, None) is getattr(own, hook, None) for hook in _HOOKS)


def scoped_compiler(base: type, name: str) -> type:
    """Return the scoped form of one of a database's compiler classes.

    Args:
        base: the class.
        name: the name that Django asks for it by.

    Raises:
        StatementRefused: it is none that the barrier can stand in.
    """
    made = _made.get(base)
    if made is None:
        own = getattr(django_compilers, name, None)
        if own is None or name not in _MIXINS or not issubclass(base, own) or not _same_hooks(base, own):
            raise StatementRefused(
                f"The compiler {base.__module__}.{base.__qualname__} is none that the barrier knows.",
                mend="Use Django's own backends for SQLite and PostgreSQL.",
            )
        made = _made[base] = type(f"Scoped{name}", (_MIXINS[name], base), {"__module__": __name__})
        if issubclass(made, ScopedInsert):
            made.plain_rows = plain_rows(base)
    return made
