"""Wall one: the tenant's predicate is added where Django compiles its SQL.

Every query, subquery, part of a union, cascade and look-up of a form asks its connection for a compiler; a protected
connection gives a subclass of it. The predicate of the base table goes to WHERE, that of a joined one to ON, so that
outer joins keep their rows; it stands before the author's criteria, which are put into parentheses of their own. The
text of the outermost query is handed to wall two (`tenantguard_django.orm.guard`), which runs no other. What this
module does not understand does not pass.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from django.db.models.sql.constants import INNER, LOUTER
from django.db.models.sql.datastructures import BaseTable, Join
from django.db.models.sql.query import Query
from django.db.models.sql.subqueries import DeleteQuery, InsertQuery, UpdateQuery

from tenantguard.binding import current_binding, raw_binding
from tenantguard.errors import ConfigurationError, StatementRefused, TenantMismatch, UnclassifiedTable
from tenantguard.orm.pins import pin_of
from tenantguard_django.orm.classify import Shared, kind_of, nothing_to_guard
from tenantguard_django.orm.criteria import Guarded, follows
from tenantguard_django.orm.failing import can_fail, joins_can_fail
from tenantguard_django.orm.lifts import LIFTS, READ, WRITE, find_lift, lifts_of
from tenantguard_django.orm.names import is_alias, may_render
from tenantguard_django.orm.predicates import Scope, predicate, scope_of
from tenantguard_django.orm.vouching import RAW_MEND, check_query, fault_of, sound_classes

__all__ = ["TOUCHED", "ScopedCompiler"]

TOUCHED: Final = "_tenantguard_touched"
"""Set on a query once rows of tenants were read by it."""
_WRITES: Final = "{}() stands on a query set that reads, and gives no right to read."
_JOINS: Final = (None, INNER, LOUTER)
_DJANGOS_QUERIES: Final = frozenset({Query, UpdateQuery, DeleteQuery, InsertQuery})


class ScopedCompiler:
    """Mixin for SELECT, and what all compilers share."""

    query: Any
    connection: Any
    using: Any
    where: Any
    quote_cache: dict[str, str]
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
        if node.__class__ not in sound_classes and (fault := fault_of(node, self.connection)) is not None:
            self._refuse(fault, RAW_MEND)
        return super().compile(node)  # type: ignore[misc]

    def _refuse(self, what: str, mend: str | None = None) -> None:
        if may_render():
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
            if nothing_to_guard(binding):
                return None  # a table of no installed model, such as Django's own of migrations
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
        if LIFTS in self.query.__dict__ and self._is_lifted(table, write=write):
            return None
        return predicate(kind, alias, scope, self.connection, write=write)

    def _is_lifted(self, table: str, *, write: bool) -> bool:
        """True if the query has the right to a table's rows, whosever they are.

        Raises:
            StatementRefused: it has it for something else.
        """
        lift = find_lift(self.query, WRITE if write else READ, table)
        if lift is None and not write:
            lift = find_lift(self.query, WRITE, table)
            if lift is not None and self.query is not self.connection.tenantguard.writing:
                raise StatementRefused(_WRITES.format(lift.right), mend="Use read_across().")
        if lift is None:
            return False
        if self.query.select_for_update:
            raise StatementRefused(f"{lift.right}() locks no rows.", mend="Leave select_for_update() out.")
        self.connection.tenantguard.lift(lift)
        return True

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
        lifted = LIFTS in query.__dict__
        quote = self._quoted
        for alias, clause in tuple(query.alias_map.items()):
            if not query.alias_refcount[alias]:
                continue
            cls = clause.__class__
            if clause.table_alias != clause.table_name and not is_alias(clause.table_alias):
                raise StatementRefused("A table's alias is no name.", mend="Use letters, digits and underscores.")
            if (cls is BaseTable or cls is Join) and ("as_sql" in clause.__dict__ or clause.join_type not in _JOINS):
                self._refuse(f"a {cls.__name__} in FROM that is written in a way of its own")
            if cls is not BaseTable and cls is not Join:
                self._refuse(f"a {cls.__name__} in FROM, which is none of Django's own")
                sql, given = super().compile(clause)  # type: ignore[misc]
                result.append(sql)
                params.extend(given)
                continue
            sql, given = clause.as_sql(self, self.connection)
            found = self.scoped(clause.table_name, quote(clause.table_alias))
            own = None if found is None or (not lifted and follows(query, alias, clause)) else found
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

    def quote_name_unless_alias(self, name: str) -> str:
        """Quote a name that is no alias: as Django does up to 6.0, which writes aliases as they are."""
        known: str | None = self.quote_cache.get(name)
        if known is not None:
            return known
        quoted: str = super().quote_name_unless_alias(name)  # type: ignore[misc]
        if quoted[:1] != '"' and not is_alias(quoted):
            self._refuse("an alias that is no name", "Use letters, digits and underscores.")
        return quoted

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
        if query.__class__ not in _DJANGOS_QUERIES:
            self._check_queries(query)
        if query.combined_queries:
            for part in query.combined_queries:
                self._check_queries(part)
        if self.outermost and (LIFTS in query.__dict__ or query.combined_queries):
            self._check_lifts(query)
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

    def _check_lifts(self, query: Any) -> None:
        """Refuse a statement that reads past the barrier otherwise than as values."""
        binding = current_binding()
        if binding is None or binding.system is not None:
            return
        for lift in lifts_of(query):
            if lift.right != READ:
                raise StatementRefused(
                    _WRITES.format(lift.right),
                    mend="Read by read_across(). If it is delete() that reads, there are rows of other models or "
                    'receivers of signals to care for: work as each tenant, or in a block of system("why").',
                )
            if self.query.default_cols:
                raise StatementRefused(
                    "A query set that reads past the barrier would make objects of other tenants' rows.",
                    mend="Ask for values() or values_list(), count() or aggregate().",
                )
        for part in query.combined_queries:
            self._check_lifts(part)

    def _fenced(self, made: tuple[str, Any]) -> tuple[str, Any]:
        """Keep PostgreSQL from making a join of a subquery whose columns can fail."""
        if self.query.is_sliced or not any(can_fail(column) for column, *_ in self.select):
            return made
        return f"{made[0]} OFFSET 0", made[1]

    def _check_queries(self, query: Any) -> None:
        if not may_render():
            check_query(query, self.connection)
            inner = getattr(query, "inner_query", None)
            if inner is not None:
                check_query(inner, self.connection)

    def _vouch(self, statements: list[Any]) -> None:
        guard = self.connection.tenantguard
        touched = guard.touched
        guard.vouched = tuple([(sql, params, touched) for sql, params in statements])
        for lift in dict.fromkeys(guard.lifted):
            lift.log()
        if touched:
            self.query.__dict__[TOUCHED] = True
            guard.statements += 1

    def _run(self, execute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Vouch for what this compiler makes, while Django runs it."""
        guard = self.connection.tenantguard
        self.outermost = True
        before, guard.touched = guard.touched, False
        lifted, guard.lifted = guard.lifted, []
        try:
            return execute(*args, **kwargs)
        finally:
            self.outermost = False
            guard.vouched = ()
            guard.touched = before
            guard.lifted = lifted

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        result = self._run(super().execute_sql, *args, **kwargs)  # type: ignore[misc]
        self.lazy = kwargs.get("chunked_fetch", False) or bool(
            self.connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
        )
        return result

    def results_iter(self, results: Any = None, *args: Any, **kwargs: Any) -> Any:
        lazy = kwargs.get("chunked_fetch", False) or self.lazy
        rows = super().results_iter(results, *args, **kwargs)  # type: ignore[misc]
        return _while_bound(rows) if lazy and self.query.__dict__.get(TOUCHED) else rows


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
