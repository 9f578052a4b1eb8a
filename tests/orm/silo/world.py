"""A schema in which two tenants can't notice each other, and the rows that programs run on.

Strict equality is possible here because nothing in the schema is unique across tenants but random names: every owned
table has the tenant key first in its primary key, its unique constraints and its foreign keys, and the children without
a tenant key have keys made of their parent's ``uid``. So a program of tenant a has no right to see any difference
whether b's rows are there or not. B's rows are canaries: the same ids as a's and others, texts that begin with
``B-CANARY``, and numbers and dates beyond all of a's on both sides, so that each one that leaks changes an answer.
"""

from datetime import date
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    String,
    Table,
    UniqueConstraint,
    func,
    insert,
    select,
)
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    column_property,
    mapped_column,
    relationship,
)

from tenantguard.orm import TenantOwned, owned_through, shared, stamp_tenant, tenant_key

__all__ = ["CANARY", "MODELS", "TABLES", "Base", "rows_of_a", "rows_of_b", "seed"]

CANARY: Final = "B-CANARY"


class Base(DeclarativeBase):
    pass


def owned(table: str, *columns: str, target: str = "id", **options: Any) -> ForeignKeyConstraint:
    """A foreign key to a table's (tenant_id, id)."""
    return ForeignKeyConstraint(
        ["tenant_id", *columns], [f"{table}.tenant_id", f"{table}.{target}"], onupdate="CASCADE", **options
    )


class Keyed:
    """Rows of tenants, known by tenant and number."""

    tenant_id: Mapped[str] = mapped_column(
        String(64), primary_key=True, default=stamp_tenant, info=tenant_key(), sort_order=-2
    )
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, sort_order=-1)


document_tags = Table(
    "document_tags",
    Base.metadata,
    Column("tenant_id", String(64), primary_key=True, default=stamp_tenant, info=tenant_key()),
    Column("document_id", Integer, primary_key=True, autoincrement=False),
    Column("tag_id", Integer, primary_key=True, autoincrement=False),
    Column("weight", Integer, nullable=False, default=1),
    owned("documents", "document_id", ondelete="CASCADE"),
    owned("tags", "tag_id", ondelete="CASCADE"),
)

watchers = Table(
    "watchers",
    Base.metadata,
    Column("document_uid", ForeignKey("documents.uid", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True),
    Column("person_uid", ForeignKey("people.uid", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True),
    Column("since", Integer),
    info=owned_through("documents"),
)


class Country(Base):
    """Shared by all tenants."""

    __tablename__ = "countries"
    __table_args__ = {"info": shared("countries: reference data")}

    code: Mapped[str] = mapped_column(String(8), primary_key=True)
    name: Mapped[str]
    area: Mapped[int]


class Person(Keyed, Base):
    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("tenant_id", "email"),)

    uid: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    email: Mapped[str]
    born: Mapped[date | None]
    version: Mapped[int] = mapped_column(default=1)
    country_code: Mapped[str | None] = mapped_column(ForeignKey("countries.code"))
    country: Mapped[Country | None] = relationship()
    documents: Mapped[list["Document"]] = relationship(
        primaryjoin="and_(Person.tenant_id == Document.tenant_id, Person.id == foreign(Document.owner_id))",
        back_populates="owner",
    )
    __mapper_args__ = {"version_id_col": version}


class Folder(Keyed, Base):
    __tablename__ = "folders"
    __table_args__ = (UniqueConstraint("tenant_id", "name"), owned("folders", "parent_id"))

    name: Mapped[str]
    rank: Mapped[int | None]
    parent_id: Mapped[int | None]
    parent: Mapped["Folder | None"] = relationship(
        primaryjoin="and_(foreign(Folder.parent_id) == remote(Folder.id), Folder.tenant_id == remote(Folder.tenant_id))",
        back_populates="children",
    )
    children: Mapped[list["Folder"]] = relationship(
        primaryjoin="and_(Folder.id == remote(foreign(Folder.parent_id)), Folder.tenant_id == remote(Folder.tenant_id))",
        back_populates="parent",
    )
    documents: Mapped[list["Document"]] = relationship(
        primaryjoin="and_(Folder.tenant_id == Document.tenant_id, Folder.id == foreign(Document.folder_id))",
        back_populates="folder",
    )
    dynamic: DynamicMapped["Document"] = relationship(
        primaryjoin="and_(Folder.tenant_id == Document.tenant_id, Folder.id == foreign(Document.folder_id))",
        viewonly=True,
    )
    write_only: WriteOnlyMapped["Document"] = relationship(
        primaryjoin="and_(Folder.tenant_id == Document.tenant_id, Folder.id == foreign(Document.folder_id))",
        viewonly=True,
    )
    titles: AssociationProxy[list[str]] = association_proxy("documents", "title")


class Tag(Keyed, Base):
    __tablename__ = "tags"
    __table_args__ = (UniqueConstraint("tenant_id", "label"),)

    label: Mapped[str]
    documents: Mapped[list["Document"]] = relationship(secondary=document_tags, back_populates="tags")


class Document(Keyed, Base):
    __tablename__ = "documents"
    __table_args__ = (owned("folders", "folder_id"), owned("people", "owner_id"))

    uid: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(default="document")
    title: Mapped[str]
    size: Mapped[int] = mapped_column(default=1)
    made: Mapped[date | None]
    meta: Mapped[str | None]
    body: Mapped[str | None] = mapped_column(deferred=True)
    folder_id: Mapped[int | None]
    owner_id: Mapped[int | None]
    priority: Mapped[int | None]
    folder: Mapped[Folder | None] = relationship(
        primaryjoin="and_(Folder.tenant_id == Document.tenant_id, Folder.id == foreign(Document.folder_id))",
        back_populates="documents",
    )
    owner: Mapped[Person | None] = relationship(
        primaryjoin="and_(Person.tenant_id == Document.tenant_id, Person.id == foreign(Document.owner_id))",
        back_populates="documents",
    )
    tags: Mapped[list[Tag]] = relationship(secondary=document_tags, back_populates="documents")
    notes: Mapped[list["Note"]] = relationship(back_populates="document", cascade="all, delete-orphan")
    watchers: Mapped[list[Person]] = relationship(secondary=watchers)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document"}

    @hybrid_property
    def big(self) -> bool:
        return self.size > 10


class Memo(Document):
    """Single-table inheritance."""

    __mapper_args__ = {"polymorphic_identity": "memo"}


class Report(Document):
    """Joined inheritance, by a table with the tenant key."""

    __tablename__ = "reports"
    __table_args__ = (owned("documents", "id", ondelete="CASCADE"),)

    tenant_id: Mapped[str] = mapped_column(
        String(64), primary_key=True, default=stamp_tenant, info=tenant_key(), sort_order=-2
    )
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, sort_order=-1)
    pages: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "report"}


class Contract(Document):
    """Joined inheritance, by a table that has the parent's name alone."""

    __tablename__ = "contracts"

    uid: Mapped[str] = mapped_column(
        ForeignKey("documents.uid", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True
    )
    worth: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "contract"}


class Note(Base):
    """A child without a tenant key."""

    __tablename__ = "notes"
    __table_args__ = {"info": owned_through("documents")}

    document_uid: Mapped[str] = mapped_column(
        ForeignKey("documents.uid", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str]
    stars: Mapped[int | None]
    document: Mapped[Document] = relationship(back_populates="notes")
    replies: Mapped[list["Reply"]] = relationship(back_populates="note", cascade="all, delete-orphan")


class Reply(Base):
    """A child of a child."""

    __tablename__ = "replies"
    __table_args__ = (
        ForeignKeyConstraint(
            ["document_uid", "position"],
            ["notes.document_uid", "notes.position"],
            ondelete="CASCADE",
            onupdate="CASCADE",
        ),
        {"info": owned_through("notes")},
    )

    document_uid: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str]
    note: Mapped[Note] = relationship(back_populates="replies")


class Entry(Base):
    """A tenant key of another name, and a key that starts with it."""

    __tablename__ = "ledger"

    org: Mapped[str] = mapped_column(String(64), primary_key=True, default=stamp_tenant, info=tenant_key())
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    account: Mapped[str]
    amount: Mapped[int | None]


class Event(TenantOwned, Base):
    """The common shape: a key that is unique by its randomness, and the tenant key beside it."""

    __tablename__ = "events"

    uid: Mapped[str] = mapped_column(primary_key=True)
    meta: Mapped[str | None]
    level: Mapped[int | None]


Folder.total = column_property(
    select(func.sum(Document.size))
    .where(Document.folder_id == Folder.id, Document.tenant_id == Folder.tenant_id)
    .correlate_except(Document)
    .scalar_subquery()
)
Folder.largest = column_property(select(func.max(Document.title)).scalar_subquery())

MODELS: Final = (Country, Person, Folder, Tag, Document, Memo, Report, Contract, Note, Reply, Entry, Event)
TABLES: Final = {table.name: table for table in Base.metadata.sorted_tables}

Rows = dict[str, list[dict[str, Any]]]


def _rows(tenant: str, word: str, number: Any, day: Any, extra: tuple[int, ...]) -> Rows:
    """Rows of one tenant: ``number`` and ``day`` turn small numbers into its own kind of values."""
    key = {"tenant_id": tenant}
    people = (1, 2, 3, *extra)
    folders = ((1, None), (2, 1), (3, 2), (4, 1), *((one, 1) for one in extra))
    kinds = ("document", "document", "memo", "report", "contract", "document", "memo", "report")
    documents = [*enumerate(kinds, start=1), *((one, kinds[one % 5]) for one in extra)]
    uid = f"{word}-uid-{{}}".format

    def meta(one: int) -> str:
        return f'{{"n": {number(one)}}}' if tenant == "a" else f"{word} no json"

    noted = [(1, 1), (1, 2), (2, 1), (4, 1), (5, 1), *((one, 1) for one in extra)]
    return {
        "people": [
            {**key, "id": one, "uid": f"{word}-person-{one}", "name": f"{word} person {one % 3}",
             "email": f"{word}{one}@example.org", "born": day(one) if one != 2 else None, "version": 1,
             "country_code": ("NZ", "FR", None)[one % 3]}
            for one in people
        ],
        "folders": [
            {**key, "id": one, "name": f"{word} folder {one}", "rank": number(one) if one != 3 else None, "parent_id": up}
            for one, up in folders
        ],
        "tags": [{**key, "id": one, "label": f"{word} tag {one}"} for one in (1, 2, 3, *extra)],
        "documents": [
            {**key, "id": one, "uid": uid(one), "kind": kind, "title": f"{word} title {one // 2}", "size": number(one * 3),
             "made": day(one) if one % 4 else None,
             "meta": meta(one) if one % 3 else None,
             "body": f"{word} body {one}", "folder_id": (one % 4 or None), "owner_id": (None, 1, 2)[one % 3],
             "priority": number(one) if kind == "memo" else None}
            for one, kind in documents
        ],
        "reports": [{**key, "id": one, "pages": number(one)} for one, kind in documents if kind == "report"],
        "contracts": [{"uid": uid(one), "worth": number(one)} for one, kind in documents if kind == "contract"],
        "notes": [
            {"document_uid": uid(one), "position": at, "text": f"{word} note {one}", "stars": number(at) if at > 1 or one > 50 else None}
            for one, at in noted
        ],
        "replies": [
            {"document_uid": uid(one), "position": at, "number": one, "text": f"{word} reply {one}"}
            for one, at in noted[1:]
        ],
        "document_tags": [
            {**key, "document_id": one, "tag_id": tag, "weight": number(tag)}
            for one, tag in ((1, 1), (1, 2), (2, 1), (4, 3), *((one, 1) for one in extra))
        ],
        "watchers": [
            {"document_uid": uid(one), "person_uid": f"{word}-person-{person}", "since": number(one)}
            for one, person in ((1, 1), (1, 2), (3, 1), *((one, one) for one in extra))
        ],
        "ledger": [
            {"org": tenant, "number": one, "account": f"{word} account {one % 2}", "amount": number(one) if one != 2 else None}
            for one in (1, 2, 3, 4, *extra)
        ],
        "events": [
            {**key, "uid": f"{word}-event-{one}", "meta": meta(one), "level": number(one) if one != 2 else None}
            for one in (1, 2, 3, 4, *extra)
        ],
    }  # fmt: skip


def rows_of_a() -> Rows:
    """Return a's rows: small numbers with ties, days of 2020."""
    rows = _rows("a", "A", lambda one: one % 7, lambda one: date(2020, 1 + one % 3, 1), ())
    shared_rows = [
        {"code": code, "name": f"Country {code}", "area": area} for code, area in (("NZ", 3), ("FR", 5), ("IN", 9))
    ]
    return {"countries": shared_rows, **rows}


def rows_of_b() -> Rows:
    """Return b's canaries: a's ids and others, numbers and days beyond a's on both sides."""
    return _rows(
        "b",
        CANARY,
        lambda one: (900_000 + one) * (1 if one % 2 else -1),
        lambda one: date(2999 if one % 2 else 1900, 1, 1 + one % 28),
        (51, 52, 53, 54),
    )


def seed(connection: Connection, *, with_b: bool) -> None:
    """Make the tables and the rows, in a system context.

    Args:
        connection: in a transaction.
        with_b: whether b's canaries stand beside a's rows.
    """
    Base.metadata.create_all(connection)
    for rows in (rows_of_a(), rows_of_b()) if with_b else (rows_of_a(),):
        for name in TABLES:
            if rows.get(name):
                connection.execute(insert(TABLES[name]), rows[name])
