"""Foreign keys do not point across tenants: what a key is sent as is looked up, scoped, before its row is written.

The look-up runs in the same transaction. What is not there for this tenant can't be pointed to, whether it exists for
another or not at all; rows that may only be read are not there either. A value that an expression computes is refused,
unless it is read from rows of the tenant's own, in a column that is such a key itself.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from django.db.models.expressions import Case, Col, ExpressionWrapper, Subquery, Value
from django.db.models.functions import Cast, Coalesce
from django.db.models.sql.query import Query

from tenantguard.binding import Binding, current_binding
from tenantguard.errors import ConfigurationError, ForeignTenantWrite, UnclassifiedTable
from tenantguard_django.orm.classify import NO_GLOBAL, Child, Link, Owned, kind_of_model
from tenantguard_django.orm.keys import end_field, is_plain
from tenantguard_django.orm.lifts import LIFTS
from tenantguard_django.orm.predicates import Scope, predicate, scope_of

__all__ = ["as_sent", "check_targets", "computed", "is_plain_value", "link_values", "prepares_plainly", "results_of"]
__all__ += ["sent"]

_PREPARING: Final = ("get_prep_value", "get_db_prep_value", "get_db_prep_save")
_AT_ONCE: Final = 500
_MOST_KNOWN: Final = 10_000


def check_targets(connection: Any, link: Link, values: list[Any]) -> None:
    """Refuse a foreign key to a row that the bound tenant does not have.

    Args:
        connection: Django's.
        link: the foreign key.
        values: what it is about to hold, as it is sent.

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
    wanted = sorted(set(values) - known, key=repr)
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
    where, params = predicate(link.target, table, scope.alone(), connection, write=link.owns)
    marks = ", ".join(["%s"] * len(values))
    # Every part is a quoted name or was written by the barrier.
    column = f"{table}.{quote(link.column)}"
    sql = f"SELECT COUNT(DISTINCT {column}) FROM {table} WHERE {column} IN ({marks}) AND {where}"  # noqa: S608
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


def link_values(link: Link, field: Any, value: Any, connection: Any) -> Iterator[Any]:
    """Give what a foreign key is about to be sent as by an UPDATE.

    Args:
        link: the foreign key.
        field: the field of the model that is updated, which may be another one of the same table.
        value: what it is set to.
        connection: Django's.

    Raises:
        ForeignTenantWrite: an expression computes it.
    """
    for given in results_of(field, value):
        if is_plain_value(given):
            prepared = sent(given, connection)
        elif hasattr(given, "resolve_expression"):
            if not _reads_own_link(link, given):
                raise computed(link)
            continue
        else:
            if hasattr(given, "prepare_database_save"):
                given = given.prepare_database_save(field)
            prepared = field.get_db_prep_save(given, connection)
        if hasattr(prepared, "as_sql"):
            raise computed(link)
        if prepared is not None:
            yield prepared


def sent(value: Value, connection: Any) -> Any:
    """Return the parameter that a `Value` becomes in a statement that writes."""
    field = value._output_field_or_none
    return value.value if field is None else field.get_db_prep_save(value.value, connection)


def is_plain_value(given: Any) -> bool:
    """True for a `Value` that is sent as Django prepares it, and not as a field of the app's does, each time anew."""
    if not isinstance(given, Value):
        return False
    field = given._output_field_or_none
    return field is None or prepares_plainly(field)


def prepares_plainly(field: Any) -> bool:
    """True if what a field makes of a value, to be sent, is made by Django's code alone."""
    return is_plain(field, _PREPARING) and is_plain(end_field(field), _PREPARING)


class _AsSent:
    """A column in the place of a field whose own code has been asked: it sends what that has made."""

    __slots__ = ("column", "field", "name", "remote_field", "unique")

    def __init__(self, field: Any) -> None:
        self.field = field
        self.column: str = field.column
        self.name: str = field.name
        self.unique: bool = field.unique
        self.remote_field = field.remote_field

    @property
    def target_field(self) -> Any:
        return self.field.target_field

    def __eq__(self, other: object) -> bool:
        return bool(self.field == other)

    def __hash__(self) -> int:
        return hash(self.field)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:  # noqa: ARG002 - as Django calls it
        return value


def as_sent(field: Any, value: Any, connection: Any) -> tuple[Any, Any]:
    """Ask a field once what it makes of a value, so that what is looked at is what is sent.

    Args:
        field: the field of an UPDATE.
        value: what it is set to.
        connection: Django's.

    Returns:
        What stands for the field in the statement, and what is sent.
    """
    if not hasattr(value, "resolve_expression") and hasattr(value, "prepare_database_save"):
        value = value.prepare_database_save(field)
    return _AsSent(field), field.get_db_prep_save(value, connection)


def results_of(field: Any, value: Any) -> Iterator[Any]:
    """Give what an expression may come to as a field's value: the branches of `Case`, what `Coalesce` holds."""
    if isinstance(value, Case):
        for case in value.cases:
            yield from results_of(field, case.result)
        yield from results_of(field, value.default)
    elif type(value) in (Coalesce, ExpressionWrapper) or (type(value) is Cast and value.output_field == field):
        for source in value.get_source_expressions():
            yield from results_of(field, source)
    else:
        yield value


def _reads_own_link(link: Link, value: Any) -> bool:
    """True for a column of a scoped query that is such a key itself, or what the key points to."""
    inner = isinstance(value, Subquery | Query)
    if inner:
        binding = current_binding()
        if binding is not None and binding.reads:
            return False  # it may read a row of another tenant
        query: Any = value.query if isinstance(value, Subquery) else value
        if (
            LIFTS in query.__dict__
            or query.combinator
            or query.annotation_select
            or query.extra_select
            or len(query.select) != 1
            or link.owns
        ):
            return False
        value = query.select[0]
    if not isinstance(value, Col):
        return False
    field = value.target
    target = link.field.target_field
    if field == target and field.model._meta.db_table == link.target.table:
        return not link.owns
    if field == link.field and not inner:
        return True
    return (
        not link.owns and field.remote_field is not None and field.target_field == target and _is_all_own(field.model)
    )


def _is_all_own(model: Any) -> bool:
    """True if each row that is read of a model is the tenant's own, and so points to rows of the tenant."""
    try:
        kind = kind_of_model(model)
    except (UnclassifiedTable, ConfigurationError):
        return False
    while isinstance(kind, Child):
        kind = kind.parent
    return isinstance(kind, Owned) and kind.everyone is NO_GLOBAL


def computed(link: Link) -> ForeignTenantWrite:
    """Return the error for a foreign key that an expression computes."""
    return ForeignTenantWrite(
        f"The foreign key {link.field.model._meta.label}.{link.field.name} was about to be computed by an expression.",
        mend="Give its value, or the object that it points to.",
    )
