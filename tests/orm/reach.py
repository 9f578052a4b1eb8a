"""Models with rows for everybody, with dimensions inside the tenant, and a schema that is classified by a rule."""

from collections.abc import Mapping

from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Integer, MetaData, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantguard.orm import TenantOwned, owned, owned_through, scope_key, shared, stamp_tenant, tenant_key, wide
from tenantguard.orm.marks import classify_by


class Base(DeclarativeBase):
    pass


class Template(Base):
    """A tenant's own, or with a key that is NULL: everybody's."""

    __tablename__ = "reach_templates"

    id: Mapped[int] = mapped_column(primary_key=True)
    org: Mapped[str | None] = mapped_column(default=stamp_tenant, info=tenant_key(global_rows=True))
    name: Mapped[str]
    parts: Mapped[list["Part"]] = relationship(back_populates="template", cascade="all, delete-orphan")


class Part(Base):
    """A child of rows of which some are everybody's."""

    __tablename__ = "reach_parts"
    __table_args__ = {"info": owned_through("reach_templates")}

    id: Mapped[int] = mapped_column(primary_key=True)
    template_id: Mapped[int] = mapped_column(ForeignKey("reach_templates.id"))
    text: Mapped[str]
    template: Mapped[Template] = relationship(back_populates="parts")


class Rate(Base):
    """The key of everybody's rows is a value, since it is a part of the primary key."""

    __tablename__ = "reach_rates"

    org: Mapped[str] = mapped_column(primary_key=True, default=stamp_tenant, info=tenant_key(global_rows="*"))
    code: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int]


class Letter(TenantOwned, Base):
    """Points to a template, which may be everybody's."""

    __tablename__ = "reach_letters"

    id: Mapped[int] = mapped_column(primary_key=True)
    template_id: Mapped[int | None] = mapped_column(ForeignKey("reach_templates.id"))


class Workspace(TenantOwned, Base):
    """Its own id is the key of the dimension."""

    __tablename__ = "reach_workspaces"

    id: Mapped[str] = mapped_column(primary_key=True, info=scope_key("workspace"))
    name: Mapped[str]


class Project(TenantOwned, Base):
    __tablename__ = "reach_projects"

    id: Mapped[str] = mapped_column(primary_key=True, info=scope_key("project"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("reach_workspaces.id"), info=scope_key("workspace"))
    name: Mapped[str]


class Issue(TenantOwned, Base):
    __tablename__ = "reach_issues"

    id: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(info=scope_key("workspace"))
    project_id: Mapped[str] = mapped_column(ForeignKey("reach_projects.id"), info=scope_key("project"))
    title: Mapped[str]
    duplicate_of: Mapped[int | None] = mapped_column(ForeignKey("reach_issues.id"))


class Remark(Base):
    """A child: narrowed with its issue."""

    __tablename__ = "reach_remarks"
    __table_args__ = {"info": owned_through("reach_issues")}

    id: Mapped[int] = mapped_column(primary_key=True)
    issue_id: Mapped[int] = mapped_column(ForeignKey("reach_issues.id"))
    text: Mapped[str]


class Watch(TenantOwned, Base):
    """Has the tenant's key and is narrowed through its issue."""

    __tablename__ = "reach_watches"
    __table_args__ = {"info": owned_through("issue_id")}

    id: Mapped[int] = mapped_column(primary_key=True)
    issue_id: Mapped[int] = mapped_column(ForeignKey("reach_issues.id"))
    who: Mapped[str]


class Member(TenantOwned, Base):
    """The whole tenant's, and declared open to all of its workspaces and projects."""

    __tablename__ = "reach_members"
    __table_args__ = {"info": wide("workspace", "project", reason="members: every workspace sees them")}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Secret(TenantOwned, Base):
    """The whole tenant's, and nothing said."""

    __tablename__ = "reach_secrets"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[str]


class Part2(Base):
    """A composite foreign key that contains the tenant's keys, not the workspaces'."""

    __tablename__ = "reach_composites"
    __table_args__ = (ForeignKeyConstraint(["tenant", "rate"], ["reach_rates.org", "reach_rates.code"]),)

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(default=stamp_tenant, info=tenant_key())
    rate: Mapped[str | None]


old = MetaData()
orders = Table("old_orders", old, Column("id", Integer, primary_key=True), Column("org_id", Integer, nullable=False))
lines = Table(
    "old_lines",
    old,
    Column("id", Integer, primary_key=True),
    Column("order_id", ForeignKey("old_orders.id"), nullable=False),
)
lookups = Table("lu_colours", old, Column("name", String, primary_key=True))
strangers = Table("old_strangers", old, Column("id", Integer, primary_key=True))


def rule(table: Table) -> Mapping[str, object] | None:
    if "org_id" in table.columns:
        return owned("org_id")
    if "order_id" in table.columns:
        return owned_through("order_id")
    return shared("lookup tables of the old schema") if table.name.startswith("lu_") else None


classify_by(rule, old)
