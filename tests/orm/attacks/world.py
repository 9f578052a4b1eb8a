"""The models that attacks are made on."""

from sqlalchemy import Column, ForeignKey, String, Table, func, select
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


class Base(DeclarativeBase):
    type_annotation_map = {str: String(200)}  # MySQL has no strings without a length


document_labels = Table(
    "document_labels",
    Base.metadata,
    Column("document_id", ForeignKey("documents.id"), primary_key=True),
    Column("label_id", ForeignKey("labels.id"), primary_key=True),
    Column("tenant_id", String(128), nullable=False, default=stamp_tenant, info=tenant_key()),
)


class Label(TenantOwned, Base):
    __tablename__ = "labels"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    documents: Mapped[list["Document"]] = relationship(secondary=document_labels, back_populates="labels")


class Folder(TenantOwned, Base):
    __tablename__ = "folders"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    parent: Mapped["Folder | None"] = relationship(remote_side=[id], back_populates="children")
    children: Mapped[list["Folder"]] = relationship(back_populates="parent")
    documents: Mapped[list["Document"]] = relationship(back_populates="folder", cascade="all, delete-orphan")
    dynamic: DynamicMapped["Document"] = relationship(viewonly=True)
    write_only: WriteOnlyMapped["Document"] = relationship(viewonly=True)
    titles: AssociationProxy[list[str]] = association_proxy("documents", "title")


class Document(TenantOwned, Base):
    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    size: Mapped[int] = mapped_column(default=1)
    body: Mapped[str] = mapped_column(default="", deferred=True)
    kind: Mapped[str] = mapped_column(default="document")
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    folder: Mapped[Folder | None] = relationship(back_populates="documents")
    labels: Mapped[list[Label]] = relationship(secondary=document_labels, back_populates="documents")
    comments: Mapped[list["Comment"]] = relationship(back_populates="document", cascade="all, delete-orphan")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document"}

    @hybrid_property
    def big(self) -> bool:
        return self.size > 1


class Memo(Document):
    """Single-table inheritance."""

    __mapper_args__ = {"polymorphic_identity": "memo"}


class Report(Document):
    """Joined inheritance."""

    __tablename__ = "reports"

    id: Mapped[int] = mapped_column(ForeignKey("documents.id"), primary_key=True)
    pages: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "report"}


class Comment(Base):
    """A child without a tenant key."""

    __tablename__ = "comments"
    __table_args__ = {"info": owned_through("documents")}

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"))
    document: Mapped[Document] = relationship(back_populates="comments")


class Country(Base):
    __tablename__ = "countries"
    __table_args__ = {"info": shared("countries: reference data")}

    code: Mapped[str] = mapped_column(primary_key=True)


Folder.count = column_property(
    select(func.count(Document.id)).where(Document.folder_id == Folder.id).correlate_except(Document).scalar_subquery()
)
Folder.all_titles = column_property(select(func.max(Document.title)).scalar_subquery())
