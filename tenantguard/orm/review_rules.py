"""The rules of a review: what is said of each table.

A key is confined to one tenant if it contains the tenant key, or a foreign key to a row of a tenant, since such a key
can't point to another tenant's row. What is confined is no finding. The rules read the models alone, and only through
what `tenantguard.orm.classify` says in public.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Computed, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Table, UniqueConstraint

from tenantguard.orm.review_ddl import Mend, Mends
from tenantguard.orm.review_facts import (
    Key,
    Subject,
    World,
    column_name,
    column_names,
    is_confined,
    is_generated,
    keys_of,
    plain,
    plain_columns,
    replaces,
    targets_of,
    unique_keys_of,
)

__all__ = ["Draft", "composite_key", "findings_of"]

_CHANGES: Final = ("CASCADE", "SET NULL", "SET DEFAULT")
_PREFIXED: Final = {"postgresql_using": ("btree",), "mysql_prefix": (), "mariadb_prefix": ()}
"""Kinds of index that can start with a tenant key like any other."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A finding, before it is told which table it is of."""

    id: str
    severity: str
    message: str
    mend: str
    ddl: tuple[str, ...] = ()


def findings_of(subject: Subject, world: World, mends: Mends) -> Iterator[Draft]:
    """Say what there is to mend in one table.

    Args:
        subject: the table.
        world: all tables.
        mends: writes the DDL.
    """
    if subject.kind == "unclassified":
        yield Draft("unclassified-table", "error", subject.detail, subject.mend)
    elif subject.kind == "misconfigured":
        nullable = subject.key is not None and subject.key.nullable
        mend = mends.set_not_null(subject.key) if nullable and subject.key is not None else Mend()
        yield _draft(
            "nullable-tenant-key" if nullable else "misconfigured-table",
            "error",
            subject.detail,
            f"{subject.mend} Rows without a tenant must be given one first." if nullable else subject.mend,
            mend,
        )
    if subject.key is not None:
        yield from _tenant_key(subject.key, mends)
    if subject.of_tenants:
        yield from _keys(subject, world, mends)
        yield from _indexes(subject, mends)
    yield from _foreign_keys(subject, world, mends)


def _tenant_key(key: Column[Any], mends: Mends) -> Iterator[Draft]:
    if key.default is not None and key.default.is_scalar:
        yield Draft(
            "tenant-key-with-fixed-default",
            "warning",
            f"The tenant key {column_name(key)} has one tenant as its default, so inserts of all others are refused.",
            "Leave the default out of the model: the barrier fills the key.",
        )
    if key.server_default is not None:
        computed = isinstance(key.server_default, Computed) or key.identity is not None
        mend = Mend() if computed else mends.drop_default(key)
        yield _draft(
            "server-default-on-tenant-key",
            "warning",
            f"The database fills the tenant key {column_name(key)} by itself, so a row that comes from elsewhere "
            "without a tenant becomes some tenant's.",
            "Remove the default of the database; the barrier fills the key.",
            mend,
        )


def _keys(subject: Subject, world: World, mends: Mends) -> Iterator[Draft]:
    table = subject.table
    unique = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    keys: list[Key] = [table.primary_key] if len(table.primary_key.columns) else []
    keys += sorted(unique, key=lambda one: [column.name for column in one.columns])
    keys += sorted((one for one in table.indexes if one.unique), key=lambda one: str(one.name))
    for key in keys:
        columns = plain_columns(key)
        if is_confined(key, columns, subject, world):
            continue
        names = ", ".join(column.name for column in columns) or "an expression"
        what = "primary key" if isinstance(key, PrimaryKeyConstraint) else "unique key"
        how = _add_tenant(subject, what)
        mend = _mended_key(key, columns, subject, world, mends)
        if replaces(key):
            message = (
                f"On SQLite the {what} ({names}) of {table.name!r} is ON CONFLICT REPLACE, and without a tenant: an "
                "insert of one tenant deletes the row of another."
            )
            yield _draft("replace-across-tenants", "error", message, f"Remove REPLACE. {how}", mend)
        elif isinstance(key, PrimaryKeyConstraint) and is_generated(table):
            message = (
                f"The primary key ({names}) of {table.name!r} is one for all tenants: an insert that chooses a key "
                "itself fails where another tenant has it."
            )
            yield _draft(
                "generated-key-without-tenant",
                "advice",
                message,
                f"It is harmless while the app lets the key be generated. Otherwise: {how}",
                mend,
            )
        else:
            message = (
                f"The {what} ({names}) of {table.name!r} is one for all tenants: an insert fails where another tenant "
                "has the value, which tells that it is there."
            )
            yield _draft("key-without-tenant", "warning", message, how, mend)


def _add_tenant(subject: Subject, what: str) -> str:
    if subject.key is not None:
        return f"Add {subject.key.name} to the {what}, in the model too."
    names = ", ".join(column.name for column in subject.through)
    return f"Add {names} to the {what}, in the model too, or give the table a tenant key of its own."


def _mended_key(key: Key, columns: Sequence[Column[Any]], subject: Subject, world: World, mends: Mends) -> Mend:
    if world.is_pointed_to(subject.table, columns):
        return Mend(note="Foreign keys point to it: have those contain the tenant key first, and review again.")
    if subject.key is None:
        return Mend()
    if isinstance(key, PrimaryKeyConstraint):
        return mends.replace_primary_key(subject.table, subject.key)
    if isinstance(key, UniqueConstraint):
        return mends.replace_unique(key, subject.key)
    return mends.replace_index(key, subject.key)


def _indexes(subject: Subject, mends: Mends) -> Iterator[Draft]:
    table = subject.table
    starts = [plain_columns(one) for one in keys_of(table)]
    wanted = [subject.key] if subject.key is not None else list(subject.through)
    by_itself = mends.name == "mysql" and subject.key is None  # InnoDB makes one for each foreign key
    if not by_itself and not any(set(columns[: len(wanted)]) == set(wanted) for columns in starts):
        yield _draft(
            "no-tenant-index",
            "warning",
            f"No index of {table.name!r} starts with {column_names(wanted)}, by which every statement is scoped.",
            "Add one, in the model too: index=True, or an Index that starts with it.",
            mends.add_index(table, wanted),
        )
    if subject.key is None:
        return
    for index in sorted(table.indexes, key=lambda one: str(one.name)):
        parts = list(index.expressions)
        contained = subject.key in plain_columns(index)
        first = plain(parts[0]) if parts else None
        if first is subject.key or (index.unique and not contained) or not _takes_prefix(index):
            continue
        yield _draft(
            "index-without-tenant",
            "advice",
            f"The index {index.name} of {table.name!r} does not start with {subject.key.name}, by which every "
            "statement is scoped.",
            f"Start it with {subject.key.name}, in the model too.",
            mends.replace_index(index, subject.key, contained=contained),
        )


def _takes_prefix(index: Index) -> bool:
    options = dict(index.dialect_kwargs)
    return all(str(options[name]).lower() in fine for name, fine in _PREFIXED.items() if options.get(name))


def _foreign_keys(subject: Subject, world: World, mends: Mends) -> Iterator[Draft]:
    ordered = sorted(subject.table.foreign_key_constraints, key=lambda one: [c.name for c in one.columns])
    for constraint in ordered:
        columns = [element.parent for element in constraint.elements]
        targets = targets_of(constraint)
        where = f"The foreign key ({', '.join(column.name for column in columns)}) of {subject.table.name!r}"
        if not targets:
            yield Draft(
                "unresolved-foreign-key",
                "warning",
                f"{where} points to a table or column that is not among the reviewed ones.",
                "Import the module that has it, or name its MetaData too.",
            )
            continue
        target = world.of(targets[0].table)
        if target.kind == "shared":
            yield from _to_shared(subject, constraint, where, target, mends)
        elif target.of_tenants and set(columns) != set(subject.through):
            yield from _to_tenants(subject, constraint, where, target, mends)


def _to_shared(
    subject: Subject, constraint: ForeignKeyConstraint, where: str, target: Subject, mends: Mends
) -> Iterator[Draft]:
    changes = _changes(constraint)
    if changes and subject.of_tenants:
        yield _draft(
            "cascade-from-shared",
            "error",
            f"{where} points to the shared table {target.table.name!r} with {changes}: a tenant that changes or "
            "deletes a shared row changes or deletes rows of all tenants.",
            "Leave the action out, in the model too; then such a row can't be deleted while a tenant uses it.",
            mends.without_actions(constraint),
        )


def _to_tenants(
    subject: Subject, constraint: ForeignKeyConstraint, where: str, target: Subject, mends: Mends
) -> Iterator[Draft]:
    changes = _changes(constraint)
    columns = [element.parent for element in constraint.elements]
    targets = targets_of(constraint)
    key = subject.key
    if key is not None and any(c is key and t is target.key for c, t in zip(columns, targets, strict=True)):
        if any(str(action or "").upper() in _CHANGES[1:] for action in (constraint.ondelete, constraint.onupdate)):
            yield _draft(
                "set-null-on-tenant-key",
                "warning",
                f"{where} has {changes}, which would empty the tenant key {key.name} as well, so it fails.",
                'Name the columns, ondelete="SET NULL (column)", on PostgreSQL 15 and later.',
                mends.narrow_actions(constraint, key),
            )
        return
    mend = Mend()
    if subject.kind == "shared":
        how = "Move it to a table of the tenant, or make this table TenantOwned."
        yield Draft(
            "shared-row-of-tenant",
            "warning",
            f"{where}, which is shared, points to {target.table.name!r}: every tenant reads which row of which tenant.",
            how,
        )
    elif subject.key is None or target.key is None:
        without = subject.table.name if subject.key is None else target.table.name
        how = f"Make {without!r} TenantOwned, so that the foreign key can contain the tenant keys of both tables."
    else:
        how = f"Have it point from {column_name(subject.key)} to {column_name(target.key)} too, in the model as well."
        mend = composite_key(subject.key, target.key, constraint, mends)
    if subject.of_tenants:
        yield _draft(
            "foreign-key-without-tenant",
            "warning",
            f"{where} to {target.table.name!r} does not contain the tenant keys of both tables, so the database would "
            "let it point to another tenant's row. The barrier looks each row up instead.",
            how,
            mend,
        )
    if changes:
        yield _draft(
            "cascade-across-tenants",
            "warning",
            f"{where} to {target.table.name!r} has {changes} and is not held within one tenant by the database: a row "
            "that was once made to point to another tenant's changes together with it.",
            how,
            mend,
        )


def composite_key(key: Column[Any], target_key: Column[Any], constraint: ForeignKeyConstraint, mends: Mends) -> Mend:
    """Return the DDL by which a foreign key contains the tenant keys of both tables.

    Args:
        key: the tenant key of the table that points.
        target_key: the tenant key of the table that it points to.
        constraint: the foreign key.
        mends: writes the DDL.
    """
    columns = [element.parent for element in constraint.elements]
    targets = [element.column for element in constraint.elements]
    if key in columns or target_key in targets:
        return Mend(note="It contains one of them in another place: write it anew by hand.")
    if key.type._type_affinity is not target_key.type._type_affinity:
        return Mend(note="The tenant keys are of different types: give them the same type first.")
    table = target_key.table
    assert isinstance(table, Table)
    wanted = [target_key, *targets]  # MySQL wants them in this order as well
    same = list if mends.name == "mysql" else frozenset
    has_key = any(same(plain_columns(one)) == same(wanted) for one in unique_keys_of(table))
    return mends.replace_foreign_key(constraint, (key, target_key), has_key=has_key)


def _changes(constraint: ForeignKeyConstraint) -> str:
    """Return the actions of a foreign key that change rows, as they are written."""
    said = (("DELETE", constraint.ondelete), ("UPDATE", constraint.onupdate))
    return " and ".join(f"ON {on} {action}" for on, action in said if str(action or "").upper().startswith(_CHANGES))


def _draft(name: str, severity: str, message: str, mend: str, done: Mend) -> Draft:
    return Draft(name, severity, message, f"{mend} {done.note}".rstrip(), done.ddl)
