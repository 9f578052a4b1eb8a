"""A few models, and the rows of two tenants: those of b are canaries, by their texts and their numbers."""

from sqlalchemy import Engine, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from tenantguard import bind, service_identity, system
from tenantguard.orm import TenantOwned, owned_through

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))
CANARY = "B-CANARY"
FIRST_OF_B = 900_000


class Base(DeclarativeBase):
    type_annotation_map = {str: String(200)}


class Folder(TenantOwned, Base):
    __tablename__ = "small_folders"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    documents: Mapped[list["Document"]] = relationship(back_populates="folder")


class Document(TenantOwned, Base):
    __tablename__ = "small_documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    folder_id: Mapped[int | None] = mapped_column(ForeignKey("small_folders.id"))
    folder: Mapped[Folder | None] = relationship(back_populates="documents")
    comments: Mapped[list["Comment"]] = relationship(back_populates="document")


class Comment(Base):
    __tablename__ = "small_comments"
    __table_args__ = {"info": owned_through("small_documents")}

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    document_id: Mapped[int] = mapped_column(ForeignKey("small_documents.id"))
    document: Mapped[Document] = relationship(back_populates="comments")


def seed(engine: Engine) -> None:
    """Make the tables anew, with a folder, three documents and three comments of each tenant."""
    with system("make the tables"):
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
    for identity, text, first in ((A, "a", 1), (B, CANARY, FIRST_OF_B)):
        with bind(identity), Session(engine) as db, db.begin():
            folder = Folder(id=first, name=f"{text}-folder")
            for number in range(first, first + 3):
                comment = Comment(id=number, text=f"{text}-comment-{number}")
                document = Document(id=number, title=f"{text}-document-{number}", folder=folder, comments=[comment])
                db.add(document)
