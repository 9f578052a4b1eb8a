"""Citus: whether the models fit it, and the statements that distribute their tables by tenant.

Owned tables become distributed tables, with the tenant key as the distribution column, all in one co-location group, so
that a tenant's rows are on one node. Shared tables become reference tables. What Citus requires of keys is stricter
than what the barrier does: each unique key must contain the distribution column itself, and foreign keys between
distributed tables must have it at the same place on both sides. ``tenantguard citus`` prints both.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Final, final

from sqlalchemy import Column, ForeignKeyConstraint, Index, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import SAWarning
from sqlalchemy.schema import sort_tables_and_constraints

from tenantguard.errors import ConfigurationError
from tenantguard.orm.classify import NO_GLOBAL, Child, Owned, classify_alone
from tenantguard.orm.review import Finding, Severity
from tenantguard.orm.review_ddl import Mend, Mends
from tenantguard.orm.review_facts import Subject, World, column_name, column_names, plain_columns, targets_of
from tenantguard.orm.review_rules import composite_key
from tenantguard.orm.rls.expressions import literal

__all__ = ["CitusPlan"]

_DIALECT: Final = PGDialect(paramstyle="named")


@final
class CitusPlan:
    """How the tables of one or several ``MetaData`` are distributed. No database is asked.

    Args:
        metadata: one or several.

    Raises:
        ConfigurationError: there is none.
    """

    def __init__(self, *metadata: MetaData) -> None:
        if not metadata or not all(isinstance(one, MetaData) for one in metadata):
            raise ConfigurationError("CitusPlan() needs a MetaData.", mend="For example CitusPlan(Base.metadata).")
        tables = {id(table): table for one in metadata for table in one.tables.values()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # circles are findings here
            ordered = sort_tables_and_constraints(
                sorted(tables.values(), key=lambda one: str(one.fullname)),
                filter_fn=lambda constraint: None if targets_of(constraint) else True,
            )
        self._later = list(ordered[-1][1])
        self._world = World([table for table, _ in ordered if table is not None])
        self._mends = Mends("postgresql")
        self._mended: set[ForeignKeyConstraint] = set()
        self._preparer = _DIALECT.identifier_preparer

    @property
    def reference(self) -> list[Table]:
        """The shared tables, those that others point to first."""
        return [subject.table for subject in self._world if subject.kind == "shared"]

    @property
    def distributed(self) -> list[Table]:
        """The tables with a tenant key, those that others point to first."""
        return [subject.table for subject in self._world if subject.kind == "owned"]

    def findings(self) -> tuple[Finding, ...]:
        """Return what Citus would refuse, in the order in which it is to be mended."""
        found = [finding for subject in self._world for finding in self._table(subject)]
        found += [finding for subject in self._world for finding in self._foreign_keys(subject)]
        found += [finding for subject in self._world for finding in self._keys(subject)]
        return tuple(found)

    def statements(self) -> list[str]:
        """Return the statements that distribute the tables, to be run on the coordinator in this order."""
        made = [f"SELECT create_reference_table({self._named(table)})" for table in self.reference]
        first = None
        for table in self.distributed:
            key = literal(self._key(table).name)
            group = "'none'" if first is None else self._named(first)
            made.append(f"SELECT create_distributed_table({self._named(table)}, {key}, colocate_with => {group})")
            first = first if first is not None else table
        return made

    def script(self) -> str:
        """Return the statements as a script for psql."""
        return "".join(f"{statement};\n" for statement in self.statements())

    def _named(self, table: Table) -> str:
        return literal(str(self._preparer.format_table(table)))

    @staticmethod
    def _key(table: Table) -> Column[Any]:
        kind = classify_alone(table)
        assert isinstance(kind, Owned)
        return kind.column

    def _table(self, subject: Subject) -> Iterator[Finding]:
        """Look at what a table is to Citus, and at its distribution column."""
        if subject.kind in ("unclassified", "misconfigured"):
            yield _finding(f"{subject.kind}-table", subject, subject.detail, subject.mend)
        elif subject.kind == "child":
            yield self._child(subject)
        elif subject.kind == "owned":
            kind = classify_alone(subject.table)
            assert isinstance(kind, Owned)
            wanted = _distribution_type(self._key(self.distributed[0]))
            if _distribution_type(kind.column) != wanted:
                yield _finding(
                    "distribution-type",
                    subject,
                    f"The tenant key {column_name(kind.column)} is {_distribution_type(kind.column)}, and others are "
                    f"{wanted}: tables are co-located by columns of one type.",
                    "Give all tenant keys one type. Citus does not change it once the table is distributed.",
                )
            if kind.everyone is not NO_GLOBAL:
                yield _finding(
                    "rows-for-everybody",
                    subject,
                    "Rows for everybody are on the one node that has the shard of their key; with NULL, Citus refuses "
                    "them.",
                    "Move them to a shared table, which is on every node.",
                    severity=Severity.ERROR if kind.everyone is None else Severity.WARNING,
                )

    def _child(self, subject: Subject) -> Finding:
        kind = top = classify_alone(subject.table)
        assert isinstance(kind, Child)
        while isinstance(top, Child):
            top = classify_alone(top.parent)
        mend = Mend()
        if isinstance(top, Owned):
            mend = self._mends.add_key(subject.table, top.column, list(zip(kind.columns, kind.targets, strict=True)))
        return _finding(
            "no-distribution-column",
            subject,
            f"{subject.table.name!r} has no tenant key, and a table is distributed by a column of its own.",
            "Add the tenant key, make the model TenantOwned, and check again: its foreign keys and its primary key "
            "need the key as well.",
            mend,
        )

    def _foreign_keys(self, subject: Subject) -> Iterator[Finding]:
        ordered = sorted(subject.table.foreign_key_constraints, key=lambda one: [c.name for c in one.columns])
        for constraint in ordered:
            targets = targets_of(constraint)
            where = f"The foreign key ({', '.join(c.name for c in constraint.columns)}) of {subject.table.name!r}"
            target = self._world.of(targets[0].table) if targets else None
            if target is None or target.kind not in ("owned", "shared", "child"):
                yield _finding(
                    "foreign-key-to-local-table",
                    subject,
                    f"{where} points to a table that is neither distributed nor a reference table.",
                    "Classify that table, and name its MetaData too.",
                )
            elif subject.kind == "shared" and target.kind != "shared":
                yield _finding(
                    "reference-to-distributed",
                    subject,
                    f"{where}, a reference table, points to the distributed table {target.table.name!r}.",
                    "Move it to a table of the tenant, or make this one TenantOwned.",
                )
            elif subject.kind == "owned" and target.kind == "owned":
                yield from self._between(subject, target, constraint, where)

    def _between(
        self, subject: Subject, target: Subject, constraint: ForeignKeyConstraint, where: str
    ) -> Iterator[Finding]:
        """Look at a foreign key between two distributed tables."""
        key, target_key = subject.key, target.key
        assert key is not None
        assert target_key is not None
        if not any(e.parent is key and e.column is target_key for e in constraint.elements):
            mend = composite_key(key, target_key, constraint, self._mends)
            if mend.ddl:
                self._mended.add(constraint)
            yield _finding(
                "foreign-key-without-distribution-column",
                subject,
                f"{where} to {target.table.name!r} does not have the tenant keys of both tables at the same place.",
                f"Have it point from {column_name(key)} to {column_name(target_key)} too, in the model as well.",
                mend,
            )
        else:
            actions = (str(constraint.ondelete or "").upper(), str(constraint.onupdate or "").upper())
            if actions[0].startswith("SET ") or actions[1].startswith(("SET ", "CASCADE")):
                yield _finding(
                    "action-on-distribution-column",
                    subject,
                    f"{where} contains the distribution column, and has ON DELETE SET ..., or an action ON UPDATE.",
                    "Leave the action out, in the model too, and let the app do it. ON DELETE CASCADE is fine.",
                    self._mends.without_actions(constraint),
                )
        if constraint in self._later and targets_of(constraint)[0].table is not subject.table:
            yield _finding(
                "foreign-key-circle",
                subject,
                f"{where} is part of a circle, and a table is distributed after those that it points to.",
                "Drop the foreign key, distribute the tables, and add it again.",
            )

    def _keys(self, subject: Subject) -> Iterator[Finding]:
        """Look at the keys of a distributed table, which must contain the distribution column."""
        key, table = subject.key, subject.table
        if subject.kind != "owned" or key is None:
            return
        for one in _unique_keys(table):
            columns = plain_columns(one)
            if key in columns:
                continue
            names = ", ".join(column.name for column in columns) or "an expression"
            kind = "primary key" if isinstance(one, PrimaryKeyConstraint) else "unique key"
            yield _finding(
                "key-without-distribution-column",
                subject,
                f"The {kind} ({names}) of {table.name!r} does not contain {key.name}.",
                f"Add {key.name} to it, in the model too: values are then unique within a tenant.",
                self._mended_key(one, key, columns),
            )
        for constraint in sorted(
            (one for one in table.constraints if isinstance(one, ExcludeConstraint)), key=lambda one: str(one.name)
        ):
            if (key.name, "=") not in [(str(name), operator) for _, name, operator in constraint._render_exprs]:
                yield _finding(
                    "key-without-distribution-column",
                    subject,
                    f"The exclusion constraint {constraint.name} of {table.name!r} does not contain {key.name} with =.",
                    f"Add ({key.name!r}, '=') to it, in the model too.",
                )

    def _mended_key(
        self, one: PrimaryKeyConstraint | UniqueConstraint | Index, key: Column[Any], columns: list[Column[Any]]
    ) -> Mend:
        table = key.table
        pointing = [
            constraint
            for subject in self._world
            for constraint in subject.table.foreign_key_constraints
            if set(targets_of(constraint)) == set(columns) and columns
        ]
        if any(constraint not in self._mended for constraint in pointing):
            return Mend(note=f"Foreign keys point to ({column_names(columns)}): have those contain it first.")
        if isinstance(one, PrimaryKeyConstraint):
            assert isinstance(table, Table)
            return self._mends.replace_primary_key(table, key)
        if isinstance(one, UniqueConstraint):
            return self._mends.replace_unique(one, key)
        return self._mends.replace_index(one, key)


def _unique_keys(table: Table) -> list[PrimaryKeyConstraint | UniqueConstraint | Index]:
    unique = sorted(
        (one for one in table.constraints if isinstance(one, UniqueConstraint)),
        key=lambda one: [column.name for column in one.columns],
    )
    indexes = sorted((one for one in table.indexes if one.unique), key=lambda one: str(one.name))
    primary: Sequence[PrimaryKeyConstraint] = [table.primary_key] if len(table.primary_key.columns) else []
    return [*primary, *unique, *indexes]


def _distribution_type(column: Column[Any]) -> str:
    """Return the type of a column without its length, which does not matter to Citus."""
    return str(column.type.compile(_DIALECT)).partition("(")[0].partition(" COLLATE")[0]


def _finding(
    id_: str, subject: Subject, message: str, mend: str, done: Mend | None = None, severity: Severity = Severity.ERROR
) -> Finding:
    done = done or Mend()
    return Finding(
        id=id_,
        severity=severity,
        table=str(subject.table.fullname),
        message=message,
        mend=f"{mend} {done.note}".rstrip(),
        ddl=done.ddl,
    )
