"""Models with every class of table: owned, child, shared with a schema, a circle of foreign keys, a tree, odd types."""

import datetime as dt
import decimal
import enum
import uuid

from sqlalchemy import JSON, Enum, ForeignKey, LargeBinary, Numeric, String, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantguard.orm import TenantOwned, owned_through, shared, tenant_key


class Base(DeclarativeBase):
    pass


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Turned(TypeDecorator[str]):
    """Keeps a text turned round: what comes out of the database is not what is in it."""

    impl = String(80)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else value[::-1]

    def process_result_value(self, value, dialect):
        return None if value is None else value[::-1]


class Folder(TenantOwned, Base):
    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    cover_id: Mapped[int | None] = mapped_column(ForeignKey("notes.id", use_alter=True, name="fk_folders_cover"))


class Note(TenantOwned, Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    size: Mapped[decimal.Decimal | None] = mapped_column(Numeric(12, 3))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    extra: Mapped[dict | None] = mapped_column(JSON)
    made: Mapped[dt.datetime | None]
    day: Mapped[dt.date | None]
    token: Mapped[uuid.UUID | None]
    colour: Mapped[Colour | None] = mapped_column(Enum(Colour))
    secret: Mapped[str | None] = mapped_column(Turned)
    ratio: Mapped[float | None]
    done: Mapped[bool | None]


class Line(Base):
    __tablename__ = "lines"
    __table_args__ = (UniqueConstraint("note_id", "number"), {"info": owned_through("notes")})
    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int] = mapped_column(ForeignKey("notes.id"))
    number: Mapped[int]
    text: Mapped[str]


class Template(Base):
    """Rows of the tenant, and rows for everybody."""

    __tablename__ = "templates"
    id: Mapped[int] = mapped_column(primary_key=True)
    org: Mapped[str | None] = mapped_column(String(128), info=tenant_key(global_rows=True))
    text: Mapped[str]


class PlacedBase(DeclarativeBase):
    """For PostgreSQL with schemas: the shared table says where it is."""


class Country(PlacedBase):
    __tablename__ = "countries"
    __table_args__ = {"schema": "public", "info": shared("reference data")}
    code: Mapped[str] = mapped_column(String(2), primary_key=True)


class Customer(TenantOwned, PlacedBase):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    country: Mapped[str | None] = mapped_column(ForeignKey("public.countries.code"))


class Order(PlacedBase):
    __tablename__ = "orders"
    __table_args__ = {"info": owned_through("customers")}
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    total: Mapped[int]
