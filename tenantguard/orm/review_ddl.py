"""The DDL that mends what a review finds, for one database.

On PostgreSQL each change is made in the form that locks the table for the shortest time: indexes are built
concurrently and then taken up by the constraint, foreign keys are added without looking at the rows that are there and
validated afterwards. SQLite can't change constraints at all, so there are statements for indexes alone. New names are
made of the table's and the columns', and are never longer than the database allows.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec

from sqlalchemy import Column, ForeignKeyConstraint, Index, MetaData, Table, UniqueConstraint
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.exc import CompileError
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql.schema import _copy_expression

__all__ = ["DIALECTS", "Mend", "Mends"]

# "named": DDL that people read and run has no doubled percent signs.
DIALECTS: Final[dict[str, Any]] = {
    "mysql": lambda: MySQLDialect(paramstyle="named"),
    "postgresql": lambda: PGDialect(paramstyle="named"),
    "sqlite": lambda: SQLiteDialect(paramstyle="named"),
}

_P = ParamSpec("_P")

_LONGEST: Final = {"postgresql": 63, "mysql": 64}
_BY_DATABASE: Final = "The models don't name it, so the name is the one that the database gives: check it."
_REBUILD: Final = "SQLite can't change it in place: rebuild the table, as Alembic's batch_alter_table does."
_PARTITIONED: Final = "The table is partitioned: change each partition first, and then the table."


class Mend(NamedTuple):
    """Statements, and what else there is to say about them."""

    ddl: tuple[str, ...] = ()
    note: str = ""


def _or_by_hand(method: "Callable[Concatenate[Mends, _P], Mend]") -> "Callable[Concatenate[Mends, _P], Mend]":
    """Say so where the models have something that the database does not know, such as a string without a length."""

    @functools.wraps(method)
    def mend(mends: "Mends", /, *args: _P.args, **kwargs: _P.kwargs) -> Mend:
        try:
            return method(mends, *args, **kwargs)
        except CompileError:
            return Mend(note=f"SQLAlchemy can't write it for {mends.name}: change it by hand.")

    return mend


class Mends:
    """Writes the DDL for one database.

    Args:
        name: a key of `DIALECTS`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._dialect = DIALECTS[name]()
        self._preparer = self._dialect.identifier_preparer
        self._compiler = self._dialect.ddl_compiler(self._dialect, None)
        self._taken: dict[tuple[str | None, str], object] = {}

    @_or_by_hand
    def add_index(self, table: Table, columns: Sequence[Column[Any]]) -> Mend:
        """An index of these columns."""
        if self._partitioned(table):
            return Mend(note=_PARTITIONED)
        return Mend((self._create_index(table, columns, unique=False, source=tuple(columns)),))

    @_or_by_hand
    def replace_index(self, index: Index, key: Column[Any], *, contained: bool = False) -> Mend:
        """The same index, starting with the tenant key.

        Args:
            index: of a `Table`.
            key: the tenant key.
            contained: the index contains the key already, at another place.
        """
        table = index.table
        assert table is not None
        if self._partitioned(table):
            return Mend(note=_PARTITIONED)
        rest = [part for part in index.expressions if not (contained and part is key)]
        create = self._create_index(table, [key, *rest], unique=index.unique, source=index, like=index)
        needed = self._needed_by_foreign_keys(table, list(index.expressions))
        if needed and not index.unique:
            return Mend((create,), "The old index stays: a foreign key needs it.")
        return Mend((create, *needed, self._drop_index(index)))

    @_or_by_hand
    def replace_unique(self, constraint: UniqueConstraint, key: Column[Any]) -> Mend:
        """The same constraint, with the tenant key before its columns."""
        table = constraint.table
        if self.name == "sqlite":
            return Mend(note=_REBUILD)
        if self._partitioned(table):
            return Mend(note=_PARTITIONED)
        columns = [key, *constraint.columns]
        name = self._name("uq", table, columns, constraint)
        include: Sequence[Any] = constraint.dialect_options["postgresql"]["include"] or ()
        included = [one if isinstance(one, Column) else table.columns[one] for one in include]
        old, note = self._existing(constraint, self._default_name(table, [*constraint.columns, *included], "key"))
        of_table = self._table(table)
        if self.name == "mysql":
            create = f"CREATE UNIQUE INDEX {self._quote(name)} ON {of_table} ({self._list(columns)})"
            needed = self._needed_by_foreign_keys(table, list(constraint.columns))
            return Mend((create, *needed, f"DROP INDEX {old} ON {of_table}"), note)
        create = self._create_index(table, columns, unique=True, source=constraint, name=name, like=constraint)
        later = self._compiler.define_constraint_deferrability(constraint)
        taken = f"ALTER TABLE {of_table} ADD CONSTRAINT {self._quote(name)} UNIQUE USING INDEX {self._quote(name)}"
        return Mend((create, taken + later, f"ALTER TABLE {of_table} DROP CONSTRAINT {old}"), note)

    @_or_by_hand
    def replace_primary_key(self, table: Table, key: Column[Any]) -> Mend:
        """The same primary key, with the tenant key before its columns."""
        if self.name == "sqlite":
            return Mend(note=_REBUILD)
        if self._partitioned(table):
            return Mend(note=_PARTITIONED)
        columns = [key, *table.primary_key.columns]
        of_table = self._table(table)
        if self.name == "mysql":
            counted = table.autoincrement_column
            index = f", ADD INDEX ({self._list([counted])})" if counted is not None else ""
            swap = f"DROP PRIMARY KEY, ADD PRIMARY KEY ({self._list(columns)}){index}"
            return Mend((*self._needed_by_foreign_keys(table, columns[1:]), f"ALTER TABLE {of_table} {swap}"))
        name = self._name("pk", table, columns, table.primary_key)
        old, note = self._existing(table.primary_key, self._default_name(table, (), "pkey"))
        create = self._create_index(table, columns, unique=True, source=table.primary_key, name=name)
        swap = f"DROP CONSTRAINT {old}, ADD CONSTRAINT {self._quote(name)} PRIMARY KEY USING INDEX {self._quote(name)}"
        return Mend((create, f"ALTER TABLE {of_table} {swap}"), note)

    @_or_by_hand
    def replace_foreign_key(
        self, constraint: ForeignKeyConstraint, pair: tuple[Column[Any], Column[Any]], *, has_key: bool
    ) -> Mend:
        """The same foreign key, with the tenant keys of both tables, so that the database holds it within one tenant.

        Args:
            constraint: which one.
            pair: the tenant keys of its table and of the table that it points to.
            has_key: the table that it points to has a unique key of these columns already.
        """
        columns = [pair[0], *(element.parent for element in constraint.elements)]
        targets = [pair[1], *(element.column for element in constraint.elements)]
        target = targets[0].table
        if self.name == "sqlite":
            return Mend(note=_REBUILD)
        if self._partitioned(target):
            return Mend(note=_PARTITIONED)
        before: tuple[str, ...] = ()
        if not has_key:
            name = self._name("uq", target, targets, (target, *targets))
            before = (self._create_index(target, targets, unique=True, source=(target, *targets), name=name),)
            if self.name == "postgresql":
                quoted = self._quote(name)
                before += (f"ALTER TABLE {self._table(target)} ADD CONSTRAINT {quoted} UNIQUE USING INDEX {quoted}",)
        actions, note = self._actions(constraint, columns[1:])
        after = self._new_foreign_key(constraint, columns, targets, actions)
        return Mend(before + after.ddl, " ".join(filter(None, (note, after.note))))

    @_or_by_hand
    def without_actions(self, constraint: ForeignKeyConstraint) -> Mend:
        """The same foreign key, which no longer changes rows when those that it points to change."""
        if self.name == "sqlite":
            return Mend(note=_REBUILD)
        columns = [element.parent for element in constraint.elements]
        return self._new_foreign_key(constraint, columns, [element.column for element in constraint.elements], "")

    @_or_by_hand
    def narrow_actions(self, constraint: ForeignKeyConstraint, key: Column[Any]) -> Mend:
        """The same foreign key, which no longer empties the tenant key together with the other columns."""
        if self.name == "sqlite":
            return Mend(note=_REBUILD)
        columns = [element.parent for element in constraint.elements]
        actions, note = self._actions(constraint, [column for column in columns if column is not key])
        made = self._new_foreign_key(constraint, columns, [element.column for element in constraint.elements], actions)
        return Mend(made.ddl, " ".join(filter(None, (note, made.note))))

    @_or_by_hand
    def set_not_null(self, column: Column[Any]) -> Mend:
        """The column without NULL."""
        if self.name == "sqlite":
            return Mend(note=_REBUILD)
        of_table = self._table(column.table)
        if self.name == "mysql":
            copy = self._copy(column.table).columns[column.key]
            copy.nullable = False
            return Mend((f"ALTER TABLE {of_table} MODIFY {self._compiler.get_column_specification(copy)}",))
        name, quoted = self._quote(self._name("ck", column.table, [column], column)), self._quote(column.name)
        return Mend(
            (
                f"ALTER TABLE {of_table} ADD CONSTRAINT {name} CHECK ({quoted} IS NOT NULL) NOT VALID",
                f"ALTER TABLE {of_table} VALIDATE CONSTRAINT {name}",
                f"ALTER TABLE {of_table} ALTER COLUMN {quoted} SET NOT NULL",
                f"ALTER TABLE {of_table} DROP CONSTRAINT {name}",
            )
        )

    @_or_by_hand
    def add_key(self, table: Table, key: Column[Any], links: Sequence[tuple[Column[Any], Column[Any]]]) -> Mend:
        """A tenant key for a child table, filled from its parent; for PostgreSQL.

        Args:
            table: the child.
            key: the tenant key of the owned table at the top; the parent has a column of its name, too.
            links: the columns of the child's foreign key, and those of the parent that they point to.
        """
        of_table, name = self._table(table), self._quote(key.name)
        parent, check = links[0][1].table, self._quote(self._name("ck", table, [key], table))
        joined = " AND ".join(
            f"{of_table}.{self._quote(column.name)} = parent.{self._quote(target.name)}" for column, target in links
        )
        index = self._quote(self._name("ix", table, [key], (table, key)))
        filled = f"UPDATE {of_table} SET {name} = parent.{name} FROM {self._table(parent)} AS parent"  # noqa: S608 - names
        return Mend(
            (
                f"ALTER TABLE {of_table} ADD COLUMN {name} {key.type.compile(self._dialect)}",
                f"{filled} WHERE {joined}",
                f"ALTER TABLE {of_table} ADD CONSTRAINT {check} CHECK ({name} IS NOT NULL) NOT VALID",
                f"ALTER TABLE {of_table} VALIDATE CONSTRAINT {check}",
                f"ALTER TABLE {of_table} ALTER COLUMN {name} SET NOT NULL",
                f"ALTER TABLE {of_table} DROP CONSTRAINT {check}",
                f"CREATE INDEX CONCURRENTLY {index} ON {of_table} ({name})",
            )
        )

    @_or_by_hand
    def drop_default(self, column: Column[Any]) -> Mend:
        """The column without a default of the database."""
        if self.name == "sqlite":
            return Mend(note=_REBUILD)
        return Mend((f"ALTER TABLE {self._table(column.table)} ALTER COLUMN {self._quote(column.name)} DROP DEFAULT",))

    def _new_foreign_key(
        self,
        old: ForeignKeyConstraint,
        columns: Sequence[Column[Any]],
        targets: Sequence[Column[Any]],
        actions: str,
    ) -> Mend:
        table = old.table
        of_table, name = self._table(table), self._quote(self._name("fk", table, columns, old))
        number = 1 + sum(1 for one in self._unnamed_before(old))
        gone, note = self._existing(
            old,
            f"{table.name}_ibfk_{number}" if self.name == "mysql" else self._default_name(table, old.columns, "fkey"),
        )
        # MATCH FULL would refuse a foreign key that is NULL beside a tenant key that is not.
        match = self._compiler.define_constraint_match(old) if len(columns) == len(old.elements) else ""
        add = (
            f"ALTER TABLE {of_table} ADD CONSTRAINT {name} FOREIGN KEY ({self._list(columns)}) "
            f"REFERENCES {self._table(targets[0].table)} ({self._list(targets)})"
            f"{match}{actions}"
        )
        if self.name == "mysql":
            return Mend((add, f"ALTER TABLE {of_table} DROP FOREIGN KEY {gone}"), note)
        add += self._compiler.define_constraint_deferrability(old) + " NOT VALID"
        validate = f"ALTER TABLE {of_table} VALIDATE CONSTRAINT {name}"
        return Mend((add, validate, f"ALTER TABLE {of_table} DROP CONSTRAINT {gone}"), note)

    def _unnamed_before(self, constraint: ForeignKeyConstraint) -> list[ForeignKeyConstraint]:
        ordered = [one for one in constraint.table._sorted_constraints if isinstance(one, ForeignKeyConstraint)]
        return [one for one in ordered[: ordered.index(constraint)] if not isinstance(one.name, str)]

    def _actions(self, constraint: ForeignKeyConstraint, emptied: Sequence[Column[Any]]) -> tuple[str, str]:
        """Return ON DELETE and ON UPDATE for a foreign key with a tenant key, which must never become NULL."""
        text, note = "", ""
        for event, action in (("DELETE", constraint.ondelete), ("UPDATE", constraint.onupdate)):
            if action is None:
                continue
            action = action.upper() if "(" not in action else action
            if action in ("SET NULL", "SET DEFAULT"):
                if self.name != "postgresql" or event == "UPDATE":
                    note = (
                        f"ON {event} {action} is left out, since it would empty the tenant key too: let the app do it."
                    )
                    continue
                action += f" ({self._list(emptied)})"
                note = "PostgreSQL knows the list of columns after SET NULL from version 15 on."
            text += f" ON {event} {action}"
        return text, note

    def _create_index(
        self,
        table: Table,
        parts: Sequence[Any],
        *,
        unique: bool,
        source: object,
        name: str | None = None,
        like: Index | UniqueConstraint | None = None,
    ) -> str:
        """Return CREATE INDEX, made of a copy of the table, so that the models stay as they are."""
        copy = self._copy(table)
        options: dict[str, Any] = dict(like.dialect_kwargs) if like is not None else {}
        if isinstance(like, UniqueConstraint):
            options = {name: value for name, value in options.items() if name.startswith("postgresql_")}
        options["postgresql_concurrently"] = True
        if name is None:
            name = self._name("uq" if unique else "ix", table, parts, source)
        same = [_copy_expression(part, table, copy) for part in parts]
        statement = CreateIndex(Index(name, *same, unique=unique, _table=copy, **options))
        return str(statement.compile(dialect=self._dialect)).strip()

    def _drop_index(self, index: Index) -> str:
        assert index.table is not None
        name = self._preparer.format_index(index)
        if self.name == "mysql":
            return f"DROP INDEX {name} ON {self._table(index.table)}"
        schema = self._preparer.quote_schema(index.table.schema) + "." if index.table.schema else ""
        return f"DROP INDEX {'CONCURRENTLY ' if self.name == 'postgresql' else ''}{schema}{name}"

    def _needed_by_foreign_keys(self, table: Table, parts: Sequence[Any]) -> tuple[str, ...]:
        """Return the indexes that MySQL wants for its foreign keys before it drops the one of these parts."""
        if self.name != "mysql":
            return ()
        pointing = [[element.parent for element in one.elements] for one in table.foreign_key_constraints]
        return tuple(
            self._create_index(table, columns, unique=False, source=tuple(columns))
            for columns in pointing
            if set(parts[: len(columns)]) == set(columns)
        )

    def _existing(self, constraint: Any, otherwise: str) -> tuple[str, str]:
        """Return the quoted name of what is there, and a note where only the database knows it."""
        name = None if constraint.name is None else self._preparer.format_constraint(constraint)
        return (self._quote(otherwise), _BY_DATABASE) if name is None else (name, "")

    def _default_name(self, table: Table, columns: Any, label: str) -> str:
        """Return the name that the database gives to a constraint without one."""
        names = [column.name for column in columns]
        if self.name == "mysql":
            return str(names[0])
        first, second = str(table.name).encode(), "_".join(names).encode()
        room = _LONGEST["postgresql"] - len(label) - 1 - bool(second)
        while len(first) + len(second) > room:  # PostgreSQL's makeObjectName
            if len(first) > len(second):
                first = first[:-1]
            else:
                second = second[:-1]
        parts = [part.decode(errors="ignore") for part in (first, second) if part]
        return "_".join([*parts, label])

    def _name(self, prefix: str, table: Table, parts: Sequence[Any], source: object) -> str:
        """Return a new name, the same for the same source."""
        words = [str(part.name) if isinstance(part, Column) else "expression" for part in parts]
        whole = "_".join([prefix, str(table.name), *words])
        named: list[Any] = [*table.indexes, *table.constraints]
        used = {str(one.name) for one in named}
        source = tuple(map(id, source)) if isinstance(source, tuple) else id(source)
        name, number = self._short(whole), 1
        while name in used or self._taken.setdefault((table.schema, name), source) != source:
            number += 1
            name = self._short(f"{whole}_{number}")
        return name

    def _short(self, name: str) -> str:
        longest = _LONGEST.get(self.name, len(name.encode()))
        if len(name.encode()) <= longest:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return name.encode()[: longest - 9].decode(errors="ignore") + "_" + digest

    def _partitioned(self, table: Table) -> bool:
        return self.name == "postgresql" and bool(table.dialect_options["postgresql"]["partition_by"])

    @staticmethod
    def _copy(table: Table) -> Table:
        return table.to_metadata(MetaData(naming_convention=table.metadata.naming_convention))

    def _table(self, table: Any) -> str:
        return str(self._preparer.format_table(table))

    def _quote(self, name: str) -> str:
        return str(self._preparer.quote(name))

    def _list(self, columns: Sequence[Column[Any]]) -> str:
        return ", ".join(self._quote(column.name) for column in columns)
