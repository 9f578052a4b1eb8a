"""Wall one: the tenant's predicate is added where Django compiles its SQL.

Every query, subquery, part of a union, cascade and look-up of a form asks its connection for a compiler; a protected
connection gives a subclass of it. The predicate of the base table goes to WHERE, that of a joined one to ON, so that
outer joins keep their rows; it stands before the author's criteria, which are put into parentheses of their own. The
text of the outermost query is handed to wall two (`tenantguard_django.orm.guard`), which runs no other. What this
module does not understand does not pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.core.exceptions import FullResultSet
from django.db.models.expressions import DatabaseDefault
from django.db.models.sql import compiler as django_compilers
from django.db.models.sql.constants import LOUTER
from django.db.models.sql.datastructures import BaseTable, Join

from tenantguard.binding import current_binding, raw_binding
from tenantguard.errors import ConfigurationError, StatementRefused, TenantMismatch, UnclassifiedTable
from tenantguard.orm.pins import pin_of
from tenantguard_django.orm.cascades import reach_of_delete
from tenantguard_django.orm.classify import Shared, anything_owned, kind_of
from tenantguard_django.orm.criteria import Guarded, follows, guarded
from tenantguard_django.orm.failing import can_fail, joins_can_fail
from tenantguard_django.orm.predicates import Scope, predicate, scope_of
from tenantguard_django.orm.vouching import check_node, check_query, sound_classes
from tenantguard_django.orm.writes import InsertCheck, check_update, conflict_target

__all__ = ["TOUCHED", "scoped_compiler"]

TOUCHED: Final = "_tenantguard_touched"
"""Set on a query once rows of tenants were read by it."""


class ScopedCompiler:
    """Mixin for SELECT, and what all compilers share."""

    query: Any
    connection: Any
    using: Any
    where: Any
    quote_name_unless_alias: Any
    outermost = False
    """Whether the text of this compiler is what runs."""
    pending = False
    """Whether a predicate is yet to be rendered."""
    lazy = False
    met = False
    """Whether a table of tenants is in FROM."""
    failing = False
    """Whether the criteria can fail."""
    select: Any

    def compile(self, node: Any) -> tuple[str, Any]:
        if node.__class__ not in sound_classes:
            self._check(node)
        return super().compile(node)  # type: ignore[misc]

    def _check(self, node: Any) -> None:
        if not _may_render():
            check_node(node, self.connection)

    def _refuse(self, what: str, mend: str | None = None) -> None:
        if _may_render():
            return
        raise StatementRefused(
            f"The statement holds {what}.",
            mend=mend or 'Write it otherwise, or run it in a block of allow_raw("why") and filter by tenant yourself.',
        )

    def scoped(self, table: str, alias: str, *, write: bool = False) -> tuple[str, list[object]] | None:
        """Return the predicate of a table; ``None`` for what needs none.

        Raises:
            TenantGuardError: the table may not be named, or no tenant is bound.
        """
        binding = raw_binding()
        if binding is not None and binding.permits:
            binding = current_binding()
        try:
            kind = kind_of(table)
        except (UnclassifiedTable, ConfigurationError):
            if binding is not None and binding.system is not None:
                self.connection.tenantguard.touched = True
                return None
            raise
        if isinstance(kind, Shared):
            return None
        self.connection.tenantguard.touched = True
        scope: Scope | None = scope_of(binding)
        if scope is None:
            return None
        if kind.unsound is not None:
            self._refuse(f"the field {kind.unsound}, which writes SQL of its own", "Vouch for its class: vouch_for().")
        return predicate(kind, alias, scope, self.connection, write=write)

    def get_from_clause(self) -> tuple[list[str], list[object]]:
        query = self.query
        if query.extra_tables:
            self._refuse("extra(tables=...)")
        result: list[str] = []
        params: list[object] = []
        wheres: list[str] = []
        where_params: list[object] = []
        conditions: list[tuple[str, list[object]]] = []
        self.failing = can_fail(self.where)
        relations = bool(query._filtered_relations) and joins_can_fail(query)
        quote = self._quoted
        for alias, clause in tuple(query.alias_map.items()):
            if not query.alias_refcount[alias]:
                continue
            cls = clause.__class__
            if clause.table_alias != clause.table_name and not _is_name(clause.table_alias):
                raise StatementRefused("A table's alias is no name.", mend="Use letters, digits and underscores.")
            if cls is not BaseTable and cls is not Join:
                self._refuse(f"a {cls.__name__} in FROM, which is none of Django's own")
                sql, given = super().compile(clause)  # type: ignore[misc]
                result.append(sql)
                params.extend(given)
                continue
            sql, given = clause.as_sql(self, self.connection)
            found = self.scoped(clause.table_name, quote(clause.table_alias))
            own = None if found is None or follows(query, alias, clause) else found
            if cls is BaseTable:
                if own is not None:
                    wheres.append(own[0])
                    where_params.extend(own[1])
            elif own is not None or (relations and clause.filtered_relation is not None):
                before = []
                if relations and clause.filtered_relation is not None and can_fail(clause.filtered_relation):
                    before = [*conditions, found] if found is not None else conditions
                sql, given = self._joined(clause, sql, given, own, before)
            if found is not None:
                self.met = True
                if self.failing or relations:
                    conditions.append(self._condition(clause, *found))
            result.append(sql)
            params.extend(given)
        for table in query.extra_tables:
            alias, _ = query.table_alias(table)
            if alias not in query.alias_map or query.alias_refcount[alias] == 1:
                result.append(f", {quote(alias)}")
        if wheres or (conditions and self.failing):
            self.pending = True
            condition = None
            if conditions and self.failing:
                every = [value for _, values in conditions for value in values]
                condition = (" AND ".join(text for text, _ in conditions), every)
            self.where = Guarded(" AND ".join(wheres), where_params, self.where, condition)
        return result, params

    def _condition(self, clause: Any, text: str, params: list[object]) -> tuple[str, list[object]]:
        """Return what holds of a table's row before criteria that can fail are evaluated on it."""
        if clause.join_type != LOUTER:
            return text, params
        # A row that an outer join has not found is NULL, and stays.
        column = self.connection.ops.quote_name(clause.join_cols[0][1])
        return f"({self._quoted(clause.table_alias)}.{column} IS NULL OR {text})", params

    def _quoted(self, name: str) -> str:
        """Quote a table or alias as this version of Django does: 6.1 quotes aliases as well, under another name."""
        quote = getattr(self, "quote_name", None) or self.quote_name_unless_alias
        return str(quote(name))

    def _joined(
        self, join: Any, sql: str, params: Any, found: Any, before: list[tuple[str, list[object]]]
    ) -> tuple[str, list[object]]:
        """Return a join with a predicate in ON, and what must hold before a condition there that can fail."""
        name = "" if join.table_alias == join.table_name else f" {self._quoted(join.table_alias)}"
        start = f"{join.join_type} {self._quoted(join.table_name)}{name} ON ("
        if not sql.startswith(start) or not sql.endswith(")"):
            raise StatementRefused("A join is written in an unknown way.", mend="Report the versions in use.")
        rest, given = sql[len(start) : -1], [*params]
        if before:
            rest = f"CASE WHEN {' AND '.join(text for text, _ in before)} THEN ({rest}) ELSE FALSE END"
            given = [*(value for _, values in before for value in values), *given]
        if found is not None:
            rest, given = f"{found[0]} AND ({rest})", [*found[1], *given]
        return f"{start}{rest})", given

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        query = self.query
        if query.__class__.__module__ != "django.db.models.sql.query":
            self._check_queries(query)
        if query.combined_queries:
            for part in query.combined_queries:
                self._check_queries(part)
        made = super().as_sql(*args, **kwargs)  # type: ignore[misc]
        if (
            query.explain_info is not None
            and self.connection.vendor != "sqlite"
            and self.connection.tenantguard.touched
        ):
            self._refuse("EXPLAIN, whose estimates and counts are of the rows of all tenants")
        if self.met and query.subquery and not self.outermost and self.connection.vendor == "postgresql":
            made = self._fenced(made)
        if self.pending and made[0]:
            raise StatementRefused("The statement is of an unknown shape.", mend="Report the versions in use.")
        if self.outermost:
            made = (made[0], tuple(made[1]))  # which no execute wrapper changes in its place
            self._vouch([made])
        return made

    def _fenced(self, made: tuple[str, Any]) -> tuple[str, Any]:
        """Keep PostgreSQL from making a join of a subquery whose columns can fail."""
        if self.query.is_sliced or not any(can_fail(column) for column, *_ in self.select):
            return made
        return f"{made[0]} OFFSET 0", made[1]

    def _check_queries(self, query: Any) -> None:
        if not _may_render():
            check_query(query, self.connection)
            inner = getattr(query, "inner_query", None)
            if inner is not None:
                check_query(inner, self.connection)

    def _vouch(self, statements: list[Any]) -> None:
        guard = self.connection.tenantguard
        touched = guard.touched
        guard.vouched = [(sql, params, touched) for sql, params in statements]
        if touched:
            self.query.__dict__[TOUCHED] = True

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Vouch for what this compiler makes, while it runs it."""
        guard = self.connection.tenantguard
        self.outermost = True
        before, guard.touched = guard.touched, False
        try:
            yield
        finally:
            self.outermost = False
            guard.vouched = []
            guard.touched = before

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        with self._running():
            result = super().execute_sql(*args, **kwargs)  # type: ignore[misc]
        self.lazy = kwargs.get("chunked_fetch", False) or bool(
            self.connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
        )
        return result

    def results_iter(self, results: Any = None, *args: Any, **kwargs: Any) -> Any:
        lazy = kwargs.get("chunked_fetch", False) or self.lazy
        rows = super().results_iter(results, *args, **kwargs)  # type: ignore[misc]
        return _while_bound(rows) if lazy and self.query.__dict__.get(TOUCHED) else rows


def _may_render() -> bool:
    """True where SQL of the app's own may stand in a statement: behind a door, or where there is nothing to guard."""
    binding = current_binding()
    if binding is None:
        return not anything_owned()
    return binding.system is not None or binding.raw is not None


def _is_name(alias: str) -> bool:
    """True for an alias that is one name and none of the barrier's own, since Django writes it without quotes."""
    return alias.isidentifier() and not alias.lower().startswith("tenantguard_")


def _while_bound(rows: Any) -> Iterator[Any]:
    """Give rows only while the tenant is bound that they were read for."""
    seen = raw_binding()
    pin = pin_of(current_binding())
    for row in rows:
        yield row
        if raw_binding() is not seen and pin_of(current_binding()) != pin:
            raise TenantMismatch(
                "Rows that were read for one tenant are fetched while another is bound.",
                mend="Iterate inside the block that began the query.",
            )


class ScopedDelete(ScopedCompiler):
    """Mixin for DELETE."""

    def _as_sql(self, query: Any) -> tuple[str, tuple[Any, ...]]:
        name = self._quoted(query.base_table)
        found = self.scoped(query.base_table, name, write=True)
        self._check_reach(query.base_table)
        self.connection.tenantguard.known.clear()  # another tenant's row may get the key of one that was removed
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
        if binding is not None and binding.system is not None:
            return
        narrowed = binding is not None and binding.identity is not None and bool(binding.identity.dimensions)
        field = reach_of_delete(table, narrowed=narrowed)
        if field is not None:
            self._refuse(
                f"a DELETE after which the database itself changes rows by {field}, where no predicate reaches",
                'Use a cascade of Django\'s own, or delete in a block of system("why").',
            )


class ScopedUpdate(ScopedCompiler):
    """Mixin for UPDATE."""

    _found: tuple[str, list[object]] | None = None

    def compile(self, node: Any) -> tuple[str, Any]:
        if node is self.query.where and self._found is not None:
            found, self._found = self._found, None
            return super().compile(guarded(found, node))
        return super().compile(node)

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        query = self.query
        table = query.get_meta().db_table
        self._found = self.scoped(table, self.connection.ops.quote_name(table), write=True)
        self.pending = self._found is not None
        if query.values:
            check_update(self)
        made = super().as_sql(*args, **kwargs)
        if made[0] and query.base_table != table:
            raise StatementRefused("The statement is of an unknown shape.", mend="Report the versions in use.")
        return made

    def execute_returning_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Run it, and return columns of the rows: how Django 6.0 and newer save a row with expressions in it."""
        with self._running():
            return super().execute_returning_sql(*args, **kwargs)  # type: ignore[misc]


class ScopedInsert(ScopedCompiler):
    """Mixin for INSERT."""

    returning_params: Any
    _check_of_rows: InsertCheck

    def pre_save_val(self, field: Any, obj: Any) -> Any:
        value = super().pre_save_val(field, obj)  # type: ignore[misc]
        self._check_of_rows.before_sending(field, value)
        if isinstance(value, DatabaseDefault):  # Django 6.1 prepares those no more, and leaves the column out
            defaults = [value.expression]
            if field.has_db_default():
                defaults.append(field.db_default)
            for default in defaults:
                self._check_of_rows.prepared(field, super().prepare_value(field, default))  # type: ignore[misc]
        return value

    def prepare_value(self, field: Any, value: Any) -> Any:
        prepared = super().prepare_value(field, value)  # type: ignore[misc]
        self._check_of_rows.prepared(field, prepared)
        return prepared

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        query = self.query
        check = self._check_of_rows = InsertCheck(self)
        check.run()
        made = super(ScopedCompiler, self).as_sql(*args, **kwargs)  # type: ignore[misc]
        check.check_links()
        target = conflict_target(self, check)
        if target is not None:
            made = [self._narrowed(sql, params, *target) for sql, params in made]
        if self.outermost:
            made = [(sql, tuple(params)) for sql, params in made]
            self._vouch(made)
        assert query is self.query
        return made

    def _narrowed(
        self, sql: str, params: Any, suffix: str, where: str, given: list[object]
    ) -> tuple[str, tuple[Any, ...]]:
        before, found, after = sql.rpartition(suffix)
        if not found or self.returning_params:
            raise StatementRefused("An upsert is written in an unknown way.", mend="Report the versions in use.")
        return f"{before}{suffix} WHERE {where}{after}", (*params, *given)

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        rows = super().execute_sql(*args, **kwargs)
        InsertCheck.compare_returned(self, rows)
        return rows


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
    return made
