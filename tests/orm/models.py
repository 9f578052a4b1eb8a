"""Models of the barrier's tests: every kind of table that it knows, and one that nobody classified."""

import uuid

from sqlalchemy import Column, ForeignKey, Integer, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantguard.orm import TenantOwned, shared, stamp_tenant, tenant_key


class Base(DeclarativeBase):
    type_annotation_map = {str: String(200)}  # MySQL has no strings without a length


tags = Table(
    "document_tags",
    Base.metadata,
    Column("document_id", ForeignKey("documents.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
    Column("tenant_id", String(128), nullable=False, default=stamp_tenant, info=tenant_key()),
)


class Folder(TenantOwned, Base):
    __tablename__ = "folders"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    parent: Mapped["Folder | None"] = relationship(remote_side=[id])
    documents: Mapped[list["Document"]] = relationship(back_populates="folder")


class Document(TenantOwned, Base):
    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    size: Mapped[int] = mapped_column(default=1)
    kind: Mapped[str] = mapped_column(default="document")
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    folder: Mapped[Folder | None] = relationship(back_populates="documents")
    tags: Mapped[list["Tag"]] = relationship(secondary=tags)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document"}


class Memo(Document):
    __mapper_args__ = {"polymorphic_identity": "memo"}


class Tag(TenantOwned, Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Account(Base):
    """A model with a tenant key of its own name and type."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    organisation: Mapped[int] = mapped_column(Integer, info=tenant_key())
    name: Mapped[str]


class Asset(Base):
    __tablename__ = "assets"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[uuid.UUID] = mapped_column(info=tenant_key())
    name: Mapped[str]


class Country(Base):
    __tablename__ = "countries"
    __table_args__ = {"info": shared("countries: reference data")}

    code: Mapped[str] = mapped_column(primary_key=True)


class Forgotten(Base):
    """Nobody said whose rows these are."""

    __tablename__ = "forgotten"

    id: Mapped[int] = mapped_column(primary_key=True)
