"""Models whose rows hang together: children without a tenant key, links, composite keys, joined inheritance."""

from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantguard.orm import TenantOwned, owned_through, shared, stamp_tenant, tenant_key
from tenantguard.orm.key_types import TENANT_ID_TYPE


class Base(DeclarativeBase):
    type_annotation_map = {str: String(200)}  # MySQL has no strings without a length


watchers = Table(
    "watchers",
    Base.metadata,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("person_id", ForeignKey("people.id"), primary_key=True),
    info=owned_through("projects"),
)


class Person(TenantOwned, Base):
    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Project(TenantOwned, Base):
    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(default="project")
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"))
    lead: Mapped[Person | None] = relationship()
    tasks: Mapped[list["Task"]] = relationship(back_populates="project", cascade="all, delete-orphan")
    watchers: Mapped[list[Person]] = relationship(secondary=watchers)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "project"}


class Campaign(Project):
    """Joined inheritance: its own table has the parent's key alone."""

    __tablename__ = "campaigns"

    id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    budget: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "campaign"}


class Task(Base):
    __tablename__ = "tasks"
    __table_args__ = {"info": owned_through("projects")}

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    assignee_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    project: Mapped[Project] = relationship(back_populates="tasks")
    comments: Mapped[list["Comment"]] = relationship(back_populates="task", cascade="all, delete-orphan")


class Comment(Base):
    __tablename__ = "task_comments"
    __table_args__ = {"info": owned_through("task_id")}

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"))
    task: Mapped[Task] = relationship(back_populates="comments")


class Invoice(Base):
    """The same number may stand in each tenant."""

    __tablename__ = "invoices"

    tenant_id: Mapped[str] = mapped_column(TENANT_ID_TYPE, primary_key=True, default=stamp_tenant, info=tenant_key())
    number: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int]
    lines: Mapped[list["Line"]] = relationship(back_populates="invoice")


class Line(TenantOwned, Base):
    """Its foreign key contains the tenant keys of both tables."""

    __tablename__ = "lines"
    __table_args__ = (ForeignKeyConstraint(["tenant_id", "number"], ["invoices.tenant_id", "invoices.number"]),)

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    amount: Mapped[int]
    invoice: Mapped[Invoice] = relationship(back_populates="lines")


class Setting(Base):
    """Shared, and with a foreign key to a tenant's row."""

    __tablename__ = "settings"
    __table_args__ = {"info": shared("settings: the same for all")}

    name: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
