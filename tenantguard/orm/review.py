"""What a review of the models says: every table with its class, and what lets one tenant notice or change another.

The barrier scopes statements; it can't scope what the database does by itself. A unique key over all tenants tells
whether another one has a value, a cascade changes rows that no statement named, and an index that does not start with
the tenant key is of little use to scoped statements. The review finds these in a ``MetaData``, without a database, and
writes the DDL that would mend them. ``tenantguard doctor orm`` prints it.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import MetaData

from tenantguard.errors import ConfigurationError
from tenantguard.orm.review_ddl import DIALECTS, Mends
from tenantguard.orm.review_facts import Subject, World
from tenantguard.orm.review_rules import Draft, findings_of

__all__ = ["Finding", "Review", "Severity", "TableReview", "review_metadata"]


class Severity(enum.StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Statements fail, or one tenant can change or delete another's rows."""
    WARNING = "warning"
    """One tenant may learn something of another, or the barrier alone holds what the database could hold as well."""
    ADVICE = "advice"
    """It holds, and could be faster or tighter."""

    @property
    def rank(self) -> int:
        """0 for the worst, and so on."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to mend.

    Args:
        id: its kind, which does not change between versions, for example ``key-without-tenant``.
        severity: how bad it is.
        table: the table, with its schema.
        message: what is wrong, in a sentence.
        mend: what to do about it.
        ddl: the statements that do it in the database, to be run one by one; empty where no statement can.
    """

    id: str
    severity: Severity
    table: str
    message: str
    mend: str
    ddl: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReview:
    """A table and what it is to the barrier.

    Args:
        name: with its schema.
        kind: ``owned``, ``child``, ``shared``, ``unclassified`` or ``misconfigured``.
        detail: the tenant key; the path from a child to it; the reason of a shared table; what is wrong.
        findings: what there is to mend, the worst first.
    """

    name: str
    kind: str
    detail: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What was found.

    Args:
        dialect: the database that the DDL is for.
        tables: every table, by name.
    """

    dialect: str
    tables: tuple[TableReview, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the worst first."""
        found = (finding for table in self.tables for finding in table.findings)
        return tuple(sorted(found, key=lambda finding: finding.severity.rank))

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings that are as bad as this or worse.

        Args:
            severity: the least bad that counts.
        """
        return tuple(finding for finding in self.findings if finding.severity.rank <= severity.rank)

    def script(self) -> str:
        """Return the DDL of all findings, with comments that say what each statement is for.

        It is made to be read before it is run. A statement that several findings need stands there once.
        """
        lines = [
            *_comment(f"Written by tenantguard doctor for {self.dialect}. Read it before you run it."),
            *_comment(_HINTS[self.dialect]),
        ]
        written: set[str] = set()
        for finding in self.findings:
            lines += ["", *_comment(f"[{finding.severity}] {finding.id}: {finding.table}"), *_comment(finding.message)]
            lines += _comment(f"{finding.mend}" if finding.ddl else f"No statement here: {finding.mend}")
            lines += [f"{statement};" for statement in finding.ddl if statement not in written]
            written.update(finding.ddl)
        return "\n".join(lines) + "\n"


_HINTS: Final = {
    "postgresql": "CREATE INDEX CONCURRENTLY can't run in a transaction: run the statements one by one. "
    "If one fails, it leaves an invalid index behind, to be dropped before the next try.",
    "sqlite": "SQLite can't change constraints: where there is no statement, rebuild the table, as Alembic's "
    "batch_alter_table does.",
    "mysql": "Each statement commits by itself. Try them on a copy first, to see how long they lock the table.",
}


def review_metadata(*metadatas: MetaData, dialect: str = "postgresql") -> Review:
    """Review every table of one or more ``MetaData``: what it is to the barrier, and what there is to mend.

    No database is asked. Tables of several ``MetaData`` are reviewed together, in the order of their names.

    Args:
        metadatas: where the tables are.
        dialect: the database that the DDL is for: ``postgresql``, ``sqlite`` or ``mysql`` (which also means MariaDB).

    Raises:
        ConfigurationError: the dialect is another.
    """
    if dialect not in DIALECTS:
        raise ConfigurationError(
            f"The review writes no DDL for {dialect!r}.", mend=f"Choose one of {', '.join(sorted(DIALECTS))}."
        )
    tables = {id(table): table for metadata in metadatas for table in metadata.tables.values()}
    world = World(sorted(tables.values(), key=lambda table: str(table.fullname)))
    mends = Mends(dialect)
    return Review(
        dialect=dialect, tables=tuple(_reviewed(subject, findings_of(subject, world, mends)) for subject in world)
    )


def _reviewed(subject: Subject, drafts: Iterable[Draft]) -> TableReview:
    name = str(subject.table.fullname)
    findings = [
        Finding(
            id=draft.id,
            severity=Severity(draft.severity),
            table=name,
            message=draft.message,
            mend=draft.mend,
            ddl=draft.ddl,
        )
        for draft in drafts
    ]
    findings.sort(key=lambda finding: finding.severity.rank)
    return TableReview(name=name, kind=subject.kind, detail=subject.detail, findings=tuple(findings))


def _comment(text: str) -> list[str]:
    """Return a text as comments: each of its lines, with what is not printable replaced."""
    return ["-- " + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)]
