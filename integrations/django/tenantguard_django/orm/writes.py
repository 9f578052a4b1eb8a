"""Writes: the tenant key is stamped, compared and immutable, and foreign keys do not point across tenants.

What a row is written with is looked at while its statement compiles, which every path makes: ``save()``, bulk methods,
fixtures, related managers. A value that an expression computes is refused for a tenant key. What is looked up for a
foreign key is in `tenantguard_django.orm.links`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, final

from django.db.models.expressions import DatabaseDefault, Value

from tenantguard.binding import Binding, current_binding, raw_binding
from tenantguard.errors import ConfigurationError, ForeignTenantWrite, StatementRefused, UnclassifiedTable
from tenantguard_django.orm.classify import (
    Child,
    Kind,
    Link,
    Owned,
    Shared,
    kind_of,
    links_of,
    nothing_to_guard,
    watched_columns,
)
from tenantguard_django.orm.keys import Key
from tenantguard_django.orm.lifts import LIFTS, WRITE, find_lift
from tenantguard_django.orm.links import (
    as_sent,
    check_targets,
    computed,
    is_plain_value,
    link_values,
    prepares_plainly,
    results_of,
    sent,
)
from tenantguard_django.orm.moves import check_move, check_rights
from tenantguard_django.orm.predicates import Scope, predicate, scope_of

__all__ = ["InsertCheck", "check_update", "conflict_target"]

_UNSET: Final = (None, "")
_LEFT_OUT: Final = DatabaseDefault(Value(None))


def _kind(table: str, binding: Binding | None) -> Kind | None:
    """Return what a table is; ``None`` for an unclassified one in a system context, or where there are no tenants."""
    try:
        return kind_of(table)
    except (UnclassifiedTable, ConfigurationError):
        if nothing_to_guard(binding) or (binding is not None and binding.system is not None):
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

    __slots__ = ("compiler", "keys", "kind", "links", "scope")

    def __init__(self, compiler: Any) -> None:
        self.compiler = compiler
        self.kind: Kind | None = None
        self.scope: Scope | None = None
        self.keys: list[tuple[Key, object]] = []
        """The keys that are fixed, and what must be sent for them."""
        self.links: list[tuple[Link, list[Any]]] = []
        """The foreign keys, and what is sent for them."""

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
            compiler.connection.tenantguard.touched |= binding is not None
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
            if scope.dimensions or not isinstance(kind, Owned):
                predicate(kind, "", scope, compiler.connection, write=True)  # is refused where it is narrowed
        if binding is None or binding.system is None:
            columns = {field.column for field in query.fields} if (links := links_of(kind)) else ()
            self.links = [(link, []) for link in links if link.field.column in columns or link.field.has_db_default()]

    def _stamp(self, key: Key, scope: Scope) -> None:
        query = self.compiler.query
        bound = scope.bound(key)
        expected = key.value(bound)
        self.keys.append((key, expected if key.text else key.parameter(bound, self.compiler.connection)))
        field = key.field_of(query.get_meta())
        if key.column not in [one.column for one in query.fields]:
            query.fields = [*query.fields, field]
        attname = field.attname
        for obj in query.objs:
            given = getattr(obj, attname)
            if given.__class__ is str and given == expected:
                continue
            if isinstance(given, DatabaseDefault) or given in _UNSET:
                setattr(obj, attname, expected)
                continue
            if isinstance(given, Value):
                given = given.value
            if hasattr(given, "resolve_expression") or not key.same(given, bound):
                raise foreign_row(key)
            setattr(obj, attname, expected)  # and nothing that would be sent otherwise than it looks

    def _check_given(self, kind: Owned | Child) -> None:
        """In a system context, rows name their tenant themselves."""
        query = self.compiler.query
        if not isinstance(kind, Owned) or getattr(query, "raw", False):
            return
        column = kind.key.column
        field = next((one for one in query.get_meta().local_concrete_fields if one.column == column), None)
        if field is None:
            return  # a model of a migration from before the key
        for obj in query.objs:
            given = getattr(obj, field.attname)
            if isinstance(given, DatabaseDefault) or given in _UNSET:
                mend = "Give it, or bind an identity inside the system context."
                if kind.everyone is None:
                    mend += " Rows for everybody are given Value(None)."
                raise ForeignTenantWrite(
                    f"A row of {kind.model._meta.label} was about to be written in a system context without a tenant.",
                    mend=mend,
                )

    def look(self, fields: Sequence[Any], rows: Sequence[Sequence[Any]]) -> None:
        """Look at rows as they are sent, once their fields' own code has made of them what it makes.

        Args:
            fields: the fields of the columns that are sent; ``None`` stands for a row without any.
            rows: the values of each row, in the order of the fields.

        Raises:
            ForeignTenantWrite: a row is another tenant's, or a foreign key is computed.
        """
        if not self.keys and not self.links:
            return
        columns = [field and field.column for field in fields]
        for key, expected in self.keys:
            if key.column not in columns:
                raise foreign_row(key)
            index = columns.index(key.column)
            for row in rows:
                value = row[index]
                if value.__class__ is not expected.__class__ or value != expected:
                    raise foreign_row(key)
        if not self.links:
            return
        sent_for = {column: [row[index] for row in rows] for index, column in enumerate(columns)}
        for link, wanted in self.links:
            wanted.extend(self._pointed_to(link, sent_for))
            if link.target is self.kind and self.compiler.query.on_conflict is None:
                # Rows may point to each other, unless another tenant's row may be there in the place of one.
                own = sent_for.get(link.column, ())
                wanted[:] = [value for value in wanted if value not in own]

    def _pointed_to(self, link: Link, sent_for: Mapping[str | None, list[Any]]) -> Iterator[Any]:
        compiler, column = self.compiler, link.field.column
        field = next((field for field in compiler.query.fields if field.column == column), link.field)
        for value in sent_for.get(column, (_LEFT_OUT,)):  # as Django 6.1 does with what the database fills in
            given = [value]
            if isinstance(value, DatabaseDefault):
                if not field.has_db_default():
                    raise computed(link)
                given = [compiler.prepare_value(field, one) for one in (value.expression, field.db_default)]
            for one in given:
                if isinstance(one, DatabaseDefault):
                    one = one.expression
                if is_plain_value(one):
                    one = sent(one, compiler.connection)
                if hasattr(one, "as_sql"):
                    raise computed(link)
                if one is not None:
                    yield one

    def check_links(self) -> None:
        """Look up what the foreign keys of the rows point to.

        Raises:
            ForeignTenantWrite: the bound tenant does not have it.
        """
        for link, wanted in self.links:
            check_targets(self.compiler.connection, link, wanted)

    @staticmethod
    def compare_returned(compiler: Any, rows: list[Any]) -> None:
        """Refuse an upsert some of whose rows were not written, because another tenant has them.

        Raises:
            ForeignTenantWrite: it is one. The transaction is rolled back with it.
        """
        query = compiler.query
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
    connection.tenantguard.known.clear()  # as by an UPDATE, a key may be given up
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
    for index, (field, model, value) in enumerate(query.values):
        if field.unique:
            compiler.connection.tenantguard.known.clear()  # another tenant's row may get the key that is given up
        found = watched.get(field.column)
        if found is None:
            continue
        key, links = found
        if key is not None and across and key.dimension == "tenant":
            if not moving:
                raise ForeignTenantWrite(
                    f"The tenant key of {kind.model._meta.label} is set in rows of several tenants, which moves them.",
                    mend="Leave it out. Rows of the bound tenant are moved by move_rows().",
                )
            check_move(key, kind, value)
        elif key is not None and scope is not None and (key.dimension == "tenant" or key.dimension in scope.dimensions):
            bound = scope.bound(key)
            if value.__class__ is str and value == key.value(bound) and not links:
                continue
            for given in results_of(field, value):
                if is_plain_value(given):
                    given = given.value
                if hasattr(given, "prepare_database_save"):
                    given = given.prepare_database_save(field)
                if hasattr(given, "resolve_expression") or not key.same(given, bound):
                    raise foreign_row(key)
        if links and not prepares_plainly(field):
            field, value = as_sent(field, value, compiler.connection)
            query.values[index] = (field, model, value)
        for link in links:
            if not across:
                check_targets(compiler.connection, link, list(link_values(link, field, value, compiler.connection)))
            elif _is_computed(value) or any(True for _ in link_values(link, field, value, compiler.connection)):
                raise ForeignTenantWrite(
                    f"The foreign key {link.field.model._meta.label}.{link.field.name} was about to be set in rows of "
                    "another tenant.",
                    mend="Set it to NULL, or write each tenant's rows as that tenant.",
                )


def _is_computed(value: Any) -> bool:
    return hasattr(value, "resolve_expression") and not is_plain_value(value)


def foreign_row(key: Key) -> ForeignTenantWrite:
    """Return the error for a row that would be another tenant's."""
    return ForeignTenantWrite(
        f"A row of {key.field.model._meta.label} was about to be written for another {key.dimension} than the bound "
        "one.",
        mend=f"Leave the {key.dimension} key out: it is filled with what is bound. Rows are moved between tenants in a "
        'block of system("why").',
    )
