"""What the companies own: folders, documents, comments. `TenantOwned` is the whole opt-in."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, ForeignKey, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantguard.orm import TenantOwned, shared


class Base(DeclarativeBase):
    pass


class Folder(TenantOwned, Base):
    __tablename__ = "folders"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    documents: Mapped[list["Document"]] = relationship(back_populates="folder", lazy="raise")


class Document(TenantOwned, Base):
    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text, default="")
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    language: Mapped[str] = mapped_column(ForeignKey("languages.code"), default="en")
    folder: Mapped[Folder | None] = relationship(back_populates="documents", lazy="raise")
    comments: Mapped[list["Comment"]] = relationship(
        back_populates="document", lazy="raise", cascade="all, delete-orphan"
    )


class Comment(TenantOwned, Base):
    __tablename__ = "comments"

    id: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"))
    text: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(String(200))
    document: Mapped[Document] = relationship(back_populates="comments", lazy="raise")


class Language(Base):
    __tablename__ = "languages"
    __table_args__ = {"info": shared("languages: reference data, the same for every company")}  # noqa: RUF012

    code: Mapped[str] = mapped_column(String(8), primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
