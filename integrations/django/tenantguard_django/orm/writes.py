"""Writes: the tenant key is stamped, compared and immutable, and foreign keys do not point across tenants.

What a row is written with is looked at while its statement compiles, which every path makes: ``save()``, bulk methods,
fixtures, related managers. A foreign key is looked up in the same transaction by a statement that is scoped like any
other, before the row is written; what is not there for this tenant can't be pointed to, whether it exists for another
or not at all. A value that an expression computes is refused for a tenant key, and for a foreign key unless it is read
from a column that is such a key itself.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, final

from django.db.models.expressions import (
    Case,
    Col,
    DatabaseDefault,
    ExpressionWrapper,
    Subquery,
    Value,
)
from django.db.models.functions import Cast, Coalesce
from django.db.models.sql.query import Query

from tenantguard.binding import Binding, current_binding, raw_binding
from tenantguard.errors import ConfigurationError, ForeignTenantWrite, StatementRefused, UnclassifiedTable
from tenantguard_django.orm.classify import Child, Kind, Link, Owned, Shared, kind_of, links_of, watched_columns
from tenantguard_django.orm.keys import Key
from tenantguard_django.orm.lifts import LIFTS, WRITE, find_lift
from tenantguard_django.orm.moves import check_move, check_rights
from tenantguard_django.orm.predicates import Scope, predicate, scope_of

__all__ = ["InsertCheck", "check_update", "conflict_target"]

_AT_ONCE: Final = 500
_MOST_KNOWN: Final = 10_000
_UNSET: Final = (None, "")


def _kind(table: str, binding: Binding | None) -> Kind | None:
    """Return what a table is; ``None`` for an unclassified one in a system context."""
    try:
        return kind_of(table)
    except (UnclassifiedTable, ConfigurationError):
        if binding is not None and binding.system is not None:
            return None
        raise


def _fixed_keys(kind: Kind, scope: Scope) -> tuple[Key, ...]:
    """Return the keys that are fixed for what is bound."""
    if isinstance(kind, Shared):
        return ()
    if not scope.dimensions:
        return kind.keys if isinstance(kind, Owned) else ()
    narrower = (key for key in kind.narrower if key.dimension in scope.dimensions)
    return (kind.key, *narrower) if isinstance(kind, Owned) else tuple(narrower)


@final
class InsertCheck:
    """Looks at the rows of an INSERT, and fills in their keys.

    Args:
        compiler: the INSERT's.
    """

    __slots__ = ("compiler", "kind", "scope")

    def __init__(self, compiler: Any) -> None:
        self.compiler = compiler
        self.kind: Kind | None = None
        self.scope: Scope | None = None

    def run(self) -> None:
        """Stamp and compare.

        Raises:
            TenantGuardError: a row is another tenant's, points to another's row, or nobody is bound.
        """
        compiler, query = self.compiler, self.compiler.query
        binding = raw_binding()
        if binding is not None and binding.permits:
            binding = current_binding()
        kind = self.kind = _kind(query.get_meta().db_table, binding)
        if kind is None:
            compiler.connection.tenantguard.touched = True
            return
        scope = None
        if not isinstance(kind, Shared):
            compiler.connection.tenantguard.touched = True
            scope = self.scope = scope_of(binding)
            if scope is None:
                self._check_given(kind)
                return
            if kind.unsound is not None:
                raise StatementRefused(
                    f"The field {kind.unsound} writes SQL of its own.", mend="Vouch for its class: vouch_for()."
                )
            for key in _fixed_keys(kind, scope):
                self._stamp(key, scope)
            if scope.dimensions:
                predicate(kind, "", scope, compiler.connection, write=True)  # is refused where it is narrowed
        self._check_links(kind, binding)

    def _stamp(self, key: Key, scope: Scope) -> None:
        query = self.compiler.query
        bound = scope.bound(key)
        expected = key.value(bound)
        if key.field not in query.fields:
            query.fields = [*query.fields, key.field]
        for obj in query.objs:
            given = getattr(obj, key.attname)
            if given.__class__ is str and given == expected:
                continue
            if isinstance(given, DatabaseDefault) or given in _UNSET:
                setattr(obj, key.attname, expected)
                continue
            if isinstance(given, Value):
                given = given.value
            if hasattr(given, "resolve_expression") or not key.same(given, bound):
                raise foreign_row(key)

    def _check_given(self, kind: Owned | Child) -> None:
        """In a system context, rows name their tenant themselves."""
        if not isinstance(kind, Owned) or getattr(self.compiler.query, "raw", False):
            return
        for obj in self.compiler.query.objs:
            if not hasattr(obj, kind.key.attname):
                return  # a model of a migration from before the key
            given = getattr(obj, kind.key.attname)
            if isinstance(given, DatabaseDefault) or given in _UNSET:
                mend = "Give it, or bind an identity inside the system context."
                if kind.everyone is None:
                    mend += " Rows for everybody are given Value(None)."
                raise ForeignTenantWrite(
                    f"A row of {kind.model._meta.label} was about to be written in a system context without a tenant.",
                    mend=mend,
                )

    def _check_links(self, kind: Kind, binding: Binding | None) -> None:
        query = self.compiler.query
        if binding is not None and binding.system is not None:
            return
        for link in links_of(kind):
            if link.field not in query.fields:
                continue
            own = (
                {getattr(obj, link.field.target_field.attname) for obj in query.objs} if link.target is kind else set()
            )
            wanted = []
            for obj in query.objs:
                value = self.compiler.pre_save_val(link.field, obj)  # where a field of the app's may fill it in
                if value is None or isinstance(value, DatabaseDefault):
                    continue
                if isinstance(value, Value):
                    value = value.value
                if hasattr(value, "resolve_expression"):
                    raise _computed(link)
                if value is not None and value not in own:
                    wanted.append(value)
            check_targets(self.compiler.connection, link, wanted)

    @staticmethod
    def compare_returned(compiler: Any, rows: list[Any]) -> None:
        """Refuse an upsert some of whose rows were not written, because another tenant has them.

        Raises:
            ForeignTenantWrite: it is one. The transaction is rolled back with it.
        """
        query = compiler.query
        if query.on_conflict is None or not compiler.returning_fields or not query.update_fields:
            return
        if len(rows) < len(query.objs) or None in rows:
            raise ForeignTenantWrite(
                f"An upsert on {query.get_meta().label} met rows that the bound tenant does not have.",
                mend="Have the tenant key in the unique constraint.",
            )


def conflict_target(compiler: Any, check: InsertCheck) -> tuple[str, str, list[object]] | None:
    """Return the text of an upsert's conflict clause, and the condition that keeps it to the tenant's own rows.

    Args:
        compiler: the INSERT's.
        check: what was found of its table.
    """
    query = compiler.query
    kind = check.kind
    if not query.update_fields or check.scope is None or not isinstance(kind, Owned | Child):
        return None
    connection = compiler.connection
    suffix = connection.ops.on_conflict_suffix_sql(
        query.fields,
        query.on_conflict,
        (field.column for field in query.update_fields),
        (field.column for field in query.unique_fields),
    )
    if not suffix:
        return None
    where, params = predicate(kind, connection.ops.quote_name(kind.table), check.scope, connection, write=True)
    return suffix, where, params


def check_update(compiler: Any) -> None:
    """Look at the values of an UPDATE.

    Raises:
        ForeignTenantWrite: a row would change its tenant, or point to another tenant's row.
        NotBound: no tenant is bound.
    """
    query = compiler.query
    binding = raw_binding()
    if binding is not None and binding.permits:
        binding = current_binding()
    kind = _kind(query.get_meta().db_table, binding)
    if kind is None or (binding is not None and binding.system is not None):
        return
    scope = None if isinstance(kind, Shared) else scope_of(binding)
    watched = watched_columns(kind)
    moving = across = False
    if LIFTS in query.__dict__ and not isinstance(kind, Shared):
        moving = check_rights(compiler, kind)
        across = moving or find_lift(query, WRITE, kind.table) is not None
    for field, _model, value in query.values:
        if field.unique:
            compiler.connection.tenantguard.known.clear()  # another tenant's row may get the key that is given up
        found = watched.get(field.column)
        if found is None:
            continue
        key, link = found
        if key is not None and across and key.dimension == "tenant":
            if not moving:
                raise ForeignTenantWrite(
                    f"The tenant key of {kind.model._meta.label} is set in rows of several tenants, which moves them.",
                    mend="Leave it out. Rows of the bound tenant are moved by move_rows().",
                )
            check_move(key, kind, value)
        elif key is not None and scope is not None and (key.dimension == "tenant" or key.dimension in scope.dimensions):
            bound = scope.bound(key)
            if value.__class__ is str and value == key.value(bound) and link is None:
                continue
            for given in _results(value):
                if isinstance(given, Value):
                    given = given.value
                if hasattr(given, "prepare_database_save"):
                    given = given.prepare_database_save(field)
                if hasattr(given, "resolve_expression") or not key.same(given, bound):
                    raise foreign_row(key)
        if link is not None and across:
            if value is not None and not (isinstance(value, Value) and value.value is None):
                raise ForeignTenantWrite(
                    f"The foreign key {link.field.model._meta.label}.{link.field.name} was about to be set in rows of "
                    "another tenant.",
                    mend="Set it to NULL, or write each tenant's rows as that tenant.",
                )
        elif link is not None:
            check_targets(compiler.connection, link, list(_link_values(link, value)))


def _results(value: Any) -> Iterator[Any]:
    """Give what an expression may come to: the branches of `Case`, what `Cast` and `Coalesce` hold."""
    if isinstance(value, Case):
        for case in value.cases:
            yield from _results(case.result)
        yield from _results(value.default)
    elif type(value) in (Cast, Coalesce, ExpressionWrapper):
        for source in value.get_source_expressions():
            yield from _results(source)
    else:
        yield value


def _link_values(link: Link, value: Any) -> Iterator[Any]:
    for given in _results(value):
        if isinstance(given, Value):
            given = given.value
        if hasattr(given, "prepare_database_save"):
            given = given.prepare_database_save(link.field)
        if given is None or (hasattr(given, "resolve_expression") and _reads_own_link(link, given)):
            continue
        if hasattr(given, "resolve_expression"):
            raise _computed(link)
        yield given


def _reads_own_link(link: Link, value: Any) -> bool:
    """True for a column of a scoped query that is such a key itself, or what the key points to."""
    if isinstance(value, Subquery | Query):
        query: Any = value.query if isinstance(value, Subquery) else value
        if query.combinator or query.annotation_select or query.extra_select or len(query.select) != 1 or link.owns:
            return False
        value = query.select[0]
    if not isinstance(value, Col):
        return False
    field = value.target
    target = link.field.target_field
    if field == target and field.model._meta.db_table == link.target.table:
        return not link.owns
    return bool(
        field.remote_field is not None and field.target_field == target and (field == link.field or not link.owns)
    )


def check_targets(connection: Any, link: Link, values: list[Any]) -> None:
    """Refuse a foreign key to a row that the bound tenant does not have.

    Args:
        connection: Django's.
        link: the foreign key.
        values: what it is about to hold.

    Raises:
        ForeignTenantWrite: a row is not there.
        NotBound: no tenant is bound.
    """
    if not values:
        return
    binding = current_binding()
    scope = scope_of(binding)
    if scope is None or binding is None:
        return
    guard = connection.tenantguard
    if sum(map(len, guard.known.values())) > _MOST_KNOWN:
        guard.known.clear()
    where = (link.target.table, link.column, link.owns)
    known = guard.known.setdefault(where, set()) if guard.pin(binding) else set()
    target_field = link.field.target_field
    prepared = {target_field.get_db_prep_value(one, connection=connection, prepared=False) for one in values}
    wanted = sorted(prepared - known, key=repr)
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        if _count(connection, link, scope, some, binding) < len(some):
            raise ForeignTenantWrite(
                f"The foreign key {link.field.model._meta.label}.{link.field.name} was about to point to a row of "
                f"{link.target.model._meta.label} that the bound tenant does not have.",
                mend="Point to a row of the same tenant.",
            )
    known.update(wanted)


def _count(connection: Any, link: Link, scope: Scope, values: Iterable[Any], binding: Binding) -> int:
    quote = connection.ops.quote_name
    values = list(values)
    table = quote(link.target.table)
    where, params = predicate(link.target, table, scope, connection, write=link.owns)
    marks = ", ".join(["%s"] * len(values))
    # Every part is a quoted name or was written by the barrier.
    sql = f"SELECT COUNT(*) FROM {table} WHERE {table}.{quote(link.column)} IN ({marks}) AND {where}"  # noqa: S608
    connection.ensure_connection()
    guard = connection.tenantguard

    def run() -> int:
        # Not by Django's cursor: the app's own queries are counted there.
        with guard.opened(), connection.wrap_database_errors:
            cursor = connection.create_cursor()
            try:
                cursor.execute(sql, [*values, *params])
                return int(cursor.fetchone()[0])
            finally:
                cursor.close()

    connection.validate_no_broken_transaction()
    if guard.setting is not None:
        counted: int = guard.setting.run(guard, binding, run)
        return counted
    return run()


def foreign_row(key: Key) -> ForeignTenantWrite:
    """Return the error for a row that would be another tenant's."""
    return ForeignTenantWrite(
        f"A row of {key.field.model._meta.label} was about to be written for another {key.dimension} than the bound "
        "one.",
        mend=f"Leave the {key.dimension} key out: it is filled with what is bound. Rows are moved between tenants in a "
        'block of system("why").',
    )


def _computed(link: Link) -> ForeignTenantWrite:
    return ForeignTenantWrite(
        f"The foreign key {link.field.model._meta.label}.{link.field.name} was about to be computed by an expression.",
        mend="Give its value, or the object that it points to.",
    )
