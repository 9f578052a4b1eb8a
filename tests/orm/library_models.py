"""Models of SQLModel and advanced-alchemy as their own documentation writes them, with the tenant key added."""

import datetime as dt

from advanced_alchemy.base import BigIntAuditBase, UUIDBase
from advanced_alchemy.repository import SQLAlchemyAsyncRepository, SQLAlchemySyncRepository
from advanced_alchemy.service import SQLAlchemyAsyncRepositoryService, SQLAlchemySyncRepositoryService
from sqlalchemy import Column, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlmodel import Field, Relationship, SQLModel

from tenantguard.orm import TenantOwned, owned_through, shared, stamp_tenant, tenant_key

# --- SQLModel: its columns are pydantic fields, so the key is a field too ------------------------------------


class OwnedByTenant(SQLModel):
    tenant_id: str | None = Field(
        default=None,
        sa_type=String(128),
        nullable=False,
        index=True,
        sa_column_kwargs={"info": tenant_key(), "default": stamp_tenant},
    )


class Team(OwnedByTenant, table=True):
    __tablename__ = "teams"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    heroes: list["Hero"] = Relationship(back_populates="team", cascade_delete=True)


class Hero(OwnedByTenant, table=True):
    __tablename__ = "heroes"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True)
    age: int | None = None
    team_id: int | None = Field(default=None, foreign_key="teams.id")
    team: Team | None = Relationship(back_populates="heroes")


class Deed(SQLModel, table=True):
    """A child without a key of its own."""

    __tablename__ = "deeds"
    __table_args__ = {"info": owned_through("heroes")}

    id: int | None = Field(default=None, primary_key=True)
    what: str
    hero_id: int = Field(foreign_key="heroes.id")


class Planet(SQLModel, table=True):
    __tablename__ = "planets"
    __table_args__ = {"info": shared("planets: reference data")}

    name: str = Field(primary_key=True)


class Gadget(SQLModel, table=True):
    """The key as a whole column, under a name of its own."""

    __tablename__ = "gadgets"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    organisation: str | None = Field(
        default=None, sa_column=Column(String(128), nullable=False, index=True, info=tenant_key(), default=stamp_tenant)
    )


# --- advanced-alchemy: TenantOwned is mixed in as everywhere -------------------------------------------------


class Author(TenantOwned, UUIDBase):
    __tablename__ = "authors"

    name: Mapped[str] = mapped_column(String(60))
    born: Mapped[dt.date | None]
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(TenantOwned, BigIntAuditBase):
    __tablename__ = "books"

    title: Mapped[str] = mapped_column(String(60))
    author_id: Mapped[object] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


class AuthorRepository(SQLAlchemySyncRepository[Author]):
    model_type = Author


class AuthorService(SQLAlchemySyncRepositoryService[Author, AuthorRepository]):
    repository_type = AuthorRepository
    match_fields = ["name"]


class BookRepository(SQLAlchemySyncRepository[Book]):
    model_type = Book


class AsyncAuthorRepository(SQLAlchemyAsyncRepository[Author]):
    model_type = Author


class AsyncAuthorService(SQLAlchemyAsyncRepositoryService[Author, AsyncAuthorRepository]):
    repository_type = AsyncAuthorRepository
    match_fields = ["name"]
