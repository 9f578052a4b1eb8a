"""Models that are declared in less usual ways: other names, other keys, defaults that compute, rows that replace."""

from typing import Any

from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    event,
    literal,
    type_coerce,
)
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, Session, composite, foreign, mapped_column, relationship, synonym

from tenantguard.orm import TenantOwned, owned_through, shared, stamp_tenant, tenant_key
from tests.orm.attacks.world import Base, Folder, Label

FIRST_OF_B = 900_000
SIDE = "side"
"""Another schema, which SQLite has as an attached database."""


class Adding(TypeDecorator[int]):
    """Stores another number than it is given."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Any) -> int | None:
        return value if value is None else value + FIRST_OF_B - 1


class AddingInSQL(TypeDecorator[int]):
    """Has the database do that."""

    impl = Integer
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return type_coerce(bindvalue, Integer) + (FIRST_OF_B - 1)


class Inventing(TypeDecorator[int]):
    """Stores a number where it is given none."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Any) -> int:
        return FIRST_OF_B


class Named(Base):
    """The table, its columns, their keys and the attributes all have different names."""

    __tablename__ = "Named Things"

    ident: Mapped[int] = mapped_column("ID", key="id_key", primary_key=True)
    owner: Mapped[str] = mapped_column(
        "TenantKey", String(128), key="owner_key", nullable=False, default=stamp_tenant, info=tenant_key()
    )
    text: Mapped[str] = mapped_column("Title", String(200), key="title_key", default="x")
    folder_number: Mapped[int | None] = mapped_column("FolderID", ForeignKey("folders.id"), key="folder_key")
    folder: Mapped[Folder | None] = relationship()
    landlord = synonym("owner")

    @hybrid_property
    def holder(self) -> Any:
        return self.owner

    @holder.inplace.update_expression
    @classmethod
    def _holder(cls, value: Any) -> Any:
        return [(cls.owner, value)]


class Placed(TenantOwned, Base):
    __tablename__ = "placed"
    __table_args__ = {"schema": SIDE}

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    above_id: Mapped[int | None] = mapped_column(ForeignKey(f"{SIDE}.placed.id"))


twins = Table(
    "twins",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant_id", String(200), key="lookalike"),
    Column("folder_id", Integer, key="pointer"),
    info=shared("twins: columns that are named like those of others"),
)


class Versioned(TenantOwned, Base):
    __tablename__ = "versioned"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"version_id_col": version}


class Team(TenantOwned, Base):
    __tablename__ = "teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    captain_id: Mapped[int | None] = mapped_column(ForeignKey("players.id", use_alter=True, name="captain"))
    captain: Mapped["Player | None"] = relationship(foreign_keys=[captain_id], post_update=True)
    players: Mapped[list["Player"]] = relationship(
        foreign_keys="Player.team_id", back_populates="team", passive_deletes="all"
    )


class Player(TenantOwned, Base):
    __tablename__ = "players"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))
    team: Mapped[Team | None] = relationship(foreign_keys=[team_id], back_populates="players")


class Membership(TenantOwned, Base):
    """An association object."""

    __tablename__ = "memberships"

    topic_id: Mapped[int] = mapped_column(ForeignKey("topics.id"), primary_key=True)
    label_id: Mapped[int] = mapped_column(ForeignKey("labels.id"), primary_key=True)
    note: Mapped[str] = mapped_column(default="")
    label: Mapped[Label] = relationship()


class Topic(TenantOwned, Base):
    __tablename__ = "topics"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    memberships: Mapped[list[Membership]] = relationship(cascade="all, delete-orphan")
    labels: AssociationProxy[list[Label]] = association_proxy(
        "memberships", "label", creator=lambda label: Membership(label=label)
    )
    label_ids: AssociationProxy[list[int]] = association_proxy(
        "memberships", "label_id", creator=lambda number: Membership(label_id=number)
    )


class Point:
    """A composite value of a number and a tenant key."""

    def __init__(self, number: int, tenant: str) -> None:
        self.number, self.tenant = number, tenant

    def __composite_values__(self) -> tuple[int, str]:
        return self.number, self.tenant


class Loose(Base):
    """A relationship without a foreign key; a composite that contains the tenant key."""

    __tablename__ = "loose"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(default=0)
    tenant: Mapped[str] = mapped_column(String(128), nullable=False, default=stamp_tenant, info=tenant_key())
    folder_ref: Mapped[int | None]
    point: Mapped[Point] = composite("number", "tenant")
    folder: Mapped[Folder | None] = relationship(
        primaryjoin=lambda: foreign(Loose.folder_ref) == Folder.id, backref="loose"
    )


class Moving(Base):
    """Its tenant key has an onupdate that would move the row."""

    __tablename__ = "moving"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(
        String(128), nullable=False, default=stamp_tenant, onupdate=lambda: "b", info=tenant_key()
    )
    title: Mapped[str]


class MovingBySQL(Base):
    """The same with an expression of SQL."""

    __tablename__ = "moving_by_sql"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(
        String(128), nullable=False, default=stamp_tenant, onupdate=literal("b"), info=tenant_key()
    )
    title: Mapped[str]


class Computed(Base):
    """Defaults of the tenant key and of foreign keys compute values of another tenant."""

    __tablename__ = "computed"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(String(128), nullable=False, default=lambda: "b", info=tenant_key())
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"), default=lambda: FIRST_OF_B)
    title: Mapped[str]


class ComputedBySQL(Base):
    """Expressions of SQL do."""

    __tablename__ = "computed_by_sql"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(
        String(128), nullable=False, default=literal("b"), server_default="b", info=tenant_key()
    )
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"), server_default=str(FIRST_OF_B))
    title: Mapped[str]


class Turning(TenantOwned, Base):
    """A foreign key with an onupdate."""

    __tablename__ = "turning"

    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"), onupdate=FIRST_OF_B)
    title: Mapped[str]


class Replacing(TenantOwned, Base):
    """On SQLite its constraints replace the row that is in the way, whoever owns it."""

    __tablename__ = "replacing"
    __table_args__ = (UniqueConstraint("code", sqlite_on_conflict="REPLACE"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[int]
    title: Mapped[str]


class ReplacingKey(TenantOwned, Base):
    """The same in the column."""

    __tablename__ = "replacing_key"

    id: Mapped[int] = mapped_column(primary_key=True, sqlite_on_conflict_primary_key="REPLACE")
    title: Mapped[str]


class Region(Base):
    """A shared table with rows of tenants that go with it."""

    __tablename__ = "regions"
    __table_args__ = {"info": shared("regions: reference data")}

    code: Mapped[str] = mapped_column(primary_key=True)


class Shop(TenantOwned, Base):
    __tablename__ = "shops"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    region_code: Mapped[str | None] = mapped_column(ForeignKey("regions.code", ondelete="CASCADE", onupdate="CASCADE"))


class Invoice(Base):
    """The same number may stand in each tenant."""

    __tablename__ = "invoices"

    tenant_id: Mapped[str] = mapped_column(primary_key=True, default=stamp_tenant, info=tenant_key())
    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Note(Base):
    """A child of a child."""

    __tablename__ = "notes"
    __table_args__ = {"info": owned_through("comments")}

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    comment_id: Mapped[int] = mapped_column(ForeignKey("comments.id"))


class ReplacingOwn(TenantOwned, Base):
    """The constraint that replaces contains the tenant key, so that it replaces own rows alone."""

    __tablename__ = "replacing_own"
    __table_args__ = (UniqueConstraint("tenant_id", "code", sqlite_on_conflict="REPLACE"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[int]
    title: Mapped[str]


class Shifting(TenantOwned, Base):
    """Foreign keys of types that change the value on its way."""

    __tablename__ = "shifting"

    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int | None] = mapped_column(Adding, ForeignKey("folders.id"))
    other_id: Mapped[int | None] = mapped_column(AddingInSQL, ForeignKey("folders.id"))


class Inventive(TenantOwned, Base):
    """A foreign key of a type that makes a value of none."""

    __tablename__ = "inventive"

    id: Mapped[int] = mapped_column(primary_key=True)
    folder_id: Mapped[int | None] = mapped_column(Inventing, ForeignKey("folders.id"))


featured = Table(
    "featured",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("folder_id", ForeignKey("folders.id")),
    info=shared("featured: what all tenants show on the first page"),
)
apart = Table(
    "named_apart",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("tenant_id", String(200), nullable=False, default=stamp_tenant, info=tenant_key()),
    Column("folder_id", ForeignKey("folders.id")),
)
"""Its MetaData does not know the table that its foreign key points to."""
apart_there = Table(
    "named_apart",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant_id", String(200), nullable=False, default=stamp_tenant, info=tenant_key()),
    Column("folder_id", Integer),
)


def refused_rows_of(text: str, tenant: str, first: int) -> list[Any]:
    """Return the rows that a tenant may not write itself."""
    return [
        Replacing(id=first, code=first, title=f"{text}-replacing", tenant_id=tenant),
        ReplacingKey(id=first, title=f"{text}-replacing", tenant_id=tenant),
    ]


def rows_of(text: str, first: int) -> list[Any]:
    """Return a tenant's rows of these models."""
    folder = first
    return [
        Named(ident=first, text=f"{text}-named", folder_number=folder),
        Placed(id=first, title=f"{text}-placed"),
        Versioned(id=first, title=f"{text}-versioned"),
        Team(id=first, name=f"{text}-team", players=[Player(id=first, name=f"{text}-player")]),
        Topic(id=first, name=f"{text}-topic", memberships=[Membership(label_id=first, note=f"{text}-note")]),
        Loose(id=first, number=first, folder_ref=folder),
        Shifting(id=first),
        ReplacingOwn(id=first, code=7, title=f"{text}-replacing"),
        Shop(id=first, title=f"{text}-shop", region_code="north"),
        Invoice(number=7, title=f"{text}-invoice"),
        Note(id=first, text=f"{text}-note", comment_id=first),
    ]


def listening(target: Any, name: str, function: Any) -> Any:
    """Return a function that runs an attack while an event listener is in place."""

    def run(attack: Any) -> Any:
        def attacked(db: Session) -> Any:
            event.listen(target, name, function)
            try:
                return attack(db)
            finally:
                event.remove(target, name, function)

        return attacked

    return run
