"""What stands in a migration script: ``op.enable_tenant_rls(...)`` and its sisters, their reverse, how it is written.

An operation is made in one of two ways: by a script that calls it, or by autogenerate, which also knows what was there
before and so what the way back is. The way back never opens what was only mended: a downgrade does not switch
row-level security off because somebody had done so by hand before the upgrade.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import DDL

from tenantguard.orm.rls.alembic import statements
from tenantguard.orm.rls.plan import LinkGuard, Policy

__all__ = [
    "OPERATIONS",
    "DisableTenantRlsOp",
    "EnableTenantRlsOp",
    "LeaveTenantRlsOp",
    "OpenSharedTableOp",
    "RemoveTenantRlsOp",
    "SecureTenantViewsOp",
    "SetUpTenantRlsOp",
    "SuspendTenantRlsOp",
    "TenantRlsOp",
]


class TenantRlsOp(MigrateOperation):
    """Any of these operations."""

    name: str
    """What a script calls, and what a report of the differences says."""
    before: MigrateOperation | None = None
    """What leads back to what was there."""

    def reverse(self) -> MigrateOperation:
        return self.before or LeaveTenantRlsOp()

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return (self.name, *(value for _, value in self.arguments()[:1]))

    def arguments(self) -> list[tuple[str, Any]]:
        """Return the arguments of the call, by name; the first is written without its name."""
        raise NotImplementedError

    def statements(self) -> list[str]:
        """Return the SQL."""
        raise NotImplementedError


class _TableOp(TenantRlsOp):
    def __init__(self, table_name: str, *, schema: str = "public") -> None:
        self.table_name = table_name
        self.schema = schema

    def arguments(self) -> list[tuple[str, Any]]:
        named = [] if self.schema == "public" else [("schema", self.schema)]
        return [("table_name", self.table_name), *named]


@Operations.register_operation("enable_tenant_rls")
class EnableTenantRlsOp(_TableOp):
    """Gives a table of tenants its policies, link checks and rights."""

    name = "enable_tenant_rls"

    def __init__(
        self,
        table_name: str,
        *,
        role: str,
        policies: Sequence[Policy],
        link_checks: Sequence[LinkGuard] = (),
        schema: str = "public",
    ) -> None:
        super().__init__(table_name, schema=schema)
        self.role = role
        self.policies = policies
        self.link_checks = link_checks

    @classmethod
    def enable_tenant_rls(
        cls,
        operations: Operations,
        table_name: str,
        *,
        role: str,
        policies: Sequence[Mapping[str, Any]],
        link_checks: Sequence[Mapping[str, Any]] = (),
        schema: str = "public",
    ) -> None:
        """Give a table its row-level security, in the place of what it had from here before.

        Args:
            operations: Alembic's.
            table_name: the table.
            role: the app's role.
            policies: each with ``name``, ``using``, and ``command`` and ``check`` if they are others than ALL and the
                same.
            link_checks: each with ``function``, ``columns``, ``body``, and ``deferred`` if it is.
            schema: of the table.
        """
        operations.invoke(
            cls(
                table_name,
                role=role,
                policies=[statements.policy_of(one) for one in policies],
                link_checks=[statements.guard_of(one) for one in link_checks],
                schema=schema,
            )
        )

    def arguments(self) -> list[tuple[str, Any]]:
        return [
            *super().arguments(),
            ("role", self.role),
            ("policies", [_policy_text(one) for one in self.policies]),
            *_links_text(self.link_checks),
        ]

    def statements(self) -> list[str]:
        return statements.enable_table(self.table_name, self.schema, self.role, self.policies, self.link_checks)


@Operations.register_operation("open_shared_table")
class OpenSharedTableOp(_TableOp):
    """Opens a shared table to the app's role."""

    name = "open_shared_table"
    policies: Sequence[Policy] = ()

    def __init__(
        self,
        table_name: str,
        *,
        role: str,
        link_checks: Sequence[LinkGuard] = (),
        rights: Sequence[str] = statements.FULL_RIGHTS,
        schema: str = "public",
    ) -> None:
        super().__init__(table_name, schema=schema)
        self.role = role
        self.link_checks = link_checks
        self.rights = rights

    @classmethod
    def open_shared_table(
        cls,
        operations: Operations,
        table_name: str,
        *,
        role: str,
        link_checks: Sequence[Mapping[str, Any]] = (),
        rights: Sequence[str] = statements.FULL_RIGHTS,
        schema: str = "public",
    ) -> None:
        """Let the app's role read and write a shared table. It has no policies; those that it had are dropped.

        Args:
            operations: Alembic's.
            table_name: the table.
            role: the app's role.
            link_checks: of its foreign keys to rows of tenants, as in `enable_tenant_rls`.
            rights: of the app's role, as GRANT takes them: without what foreign keys would carry on to every tenant.
            schema: of the table.
        """
        guards = [statements.guard_of(one) for one in link_checks]
        operations.invoke(cls(table_name, role=role, link_checks=guards, rights=rights, schema=schema))

    def arguments(self) -> list[tuple[str, Any]]:
        partly = [] if list(self.rights) == list(statements.FULL_RIGHTS) else [("rights", list(self.rights))]
        return [*super().arguments(), ("role", self.role), *_links_text(self.link_checks), *partly]

    def statements(self) -> list[str]:
        return statements.open_table(self.table_name, self.schema, self.role, self.link_checks, self.rights)


@Operations.register_operation("disable_tenant_rls")
class DisableTenantRlsOp(_TableOp):
    """Takes a table's policies, link checks and rights away."""

    name = "disable_tenant_rls"

    def __init__(self, table_name: str, *, role: str, schema: str = "public") -> None:
        super().__init__(table_name, schema=schema)
        self.role = role

    @classmethod
    def disable_tenant_rls(cls, operations: Operations, table_name: str, *, role: str, schema: str = "public") -> None:
        """Take it all back: first the rights of the app's role, then link checks and policies.

        Args:
            operations: Alembic's.
            table_name: the table.
            role: the app's role.
            schema: of the table.
        """
        operations.invoke(cls(table_name, role=role, schema=schema))

    def arguments(self) -> list[tuple[str, Any]]:
        return [*super().arguments(), ("role", self.role)]

    def statements(self) -> list[str]:
        return statements.disable_table(self.table_name, self.schema, self.role)


@Operations.register_operation("suspend_tenant_rls")
class SuspendTenantRlsOp(_TableOp):
    """Drops a table's policies and keeps it closed, so that a column that they name can be changed."""

    name = "suspend_tenant_rls"

    @classmethod
    def suspend_tenant_rls(cls, operations: Operations, table_name: str, *, schema: str = "public") -> None:
        """Drop the policies and link checks, and keep row-level security on: nobody reaches a row until
        ``enable_tenant_rls``. For changes of columns that policies name, which PostgreSQL refuses.

        Args:
            operations: Alembic's.
            table_name: the table.
            schema: of the table.
        """
        operations.invoke(cls(table_name, schema=schema))

    def statements(self) -> list[str]:
        return statements.suspend_table(self.table_name, self.schema)


@Operations.register_operation("set_up_tenant_rls")
class SetUpTenantRlsOp(TenantRlsOp):
    """Makes the app's role, and the functions that policies call."""

    name = "set_up_tenant_rls"

    def __init__(
        self, *, role: str, schemas: Sequence[str], sealed: bool, functions: Mapping[str, tuple[str, str]]
    ) -> None:
        self.role = role
        self.schemas = schemas
        self.sealed = sealed
        self.functions = functions

    @classmethod
    def set_up_tenant_rls(
        cls,
        operations: Operations,
        *,
        role: str,
        schemas: Sequence[str],
        sealed: bool,
        functions: Mapping[str, tuple[str, str]],
    ) -> None:
        """Make the app's role, the schema ``tenantguard``, its functions, and what is nobody's without a grant.

        Args:
            operations: Alembic's.
            role: the app's role. It is left as it is if it is there.
            schemas: the schemas of the tables.
            sealed: whether the setting must be sealed.
            functions: what each returns, and its body, by signature.
        """
        operations.invoke(cls(role=role, schemas=schemas, sealed=sealed, functions=functions))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return (self.name, self.role)

    def arguments(self) -> list[tuple[str, Any]]:
        return [
            ("role", self.role),
            ("schemas", list(self.schemas)),
            ("sealed", self.sealed),
            ("functions", {name: tuple(one) for name, one in self.functions.items()}),
        ]

    def statements(self) -> list[str]:
        return statements.set_up(self.role, self.schemas, self.functions, sealed=self.sealed)


@Operations.register_operation("remove_tenant_rls")
class RemoveTenantRlsOp(TenantRlsOp):
    """Takes the set-up back."""

    name = "remove_tenant_rls"

    def __init__(
        self,
        *,
        role: str,
        schemas: Sequence[str],
        functions: Sequence[str],
        public_temporary: bool = False,
        public_create: Sequence[str] = (),
    ) -> None:
        self.role = role
        self.schemas = schemas
        self.functions = functions
        self.public_temporary = public_temporary
        self.public_create = public_create

    @classmethod
    def remove_tenant_rls(
        cls,
        operations: Operations,
        *,
        role: str,
        schemas: Sequence[str],
        functions: Sequence[str],
        public_temporary: bool = False,
        public_create: Sequence[str] = (),
    ) -> None:
        """Remove the schema ``tenantguard`` and the keys in it. The role stays. It fails while a policy is left.

        Args:
            operations: Alembic's.
            role: the app's role.
            schemas: the schemas of the tables.
            functions: the signatures of the functions.
            public_temporary: whether everybody may make temporary tables again.
            public_create: the schemas in which everybody may make tables again.
        """
        operations.invoke(
            cls(
                role=role,
                schemas=schemas,
                functions=functions,
                public_temporary=public_temporary,
                public_create=public_create,
            )
        )

    def arguments(self) -> list[tuple[str, Any]]:
        return [
            ("role", self.role),
            ("schemas", list(self.schemas)),
            ("functions", list(self.functions)),
            *([("public_temporary", True)] if self.public_temporary else []),
            *([("public_create", list(self.public_create))] if self.public_create else []),
        ]

    def statements(self) -> list[str]:
        return statements.remove(
            self.role, self.schemas, self.functions, temporary=self.public_temporary, create=self.public_create
        )


@Operations.register_operation("secure_tenant_views")
class SecureTenantViewsOp(TenantRlsOp):
    """Has views read with the rights of who asks."""

    name = "secure_tenant_views"

    def __init__(self, views: Sequence[str]) -> None:
        self.views = views

    @classmethod
    def secure_tenant_views(cls, operations: Operations, views: Sequence[str]) -> None:
        """Have views of tables of tenants read with the rights of who asks, not of who made the view.

        Args:
            operations: Alembic's.
            views: with their schemas, in quotes where they need them.
        """
        operations.invoke(cls(views))

    def arguments(self) -> list[tuple[str, Any]]:
        return [("views", list(self.views))]

    def statements(self) -> list[str]:
        return statements.secure_views(self.views)


class LeaveTenantRlsOp(MigrateOperation):
    """The way back from what was mended: it stays mended."""

    def reverse(self) -> MigrateOperation:
        return self

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("leave_tenant_rls",)


def _policy_text(policy: Policy) -> dict[str, Any]:
    text = {"name": policy.name}
    if policy.command != "ALL":
        text["command"] = policy.command
    text["using"] = policy.using
    if policy.check not in (None, policy.using):
        text["check"] = str(policy.check)
    return text


def _links_text(guards: Sequence[LinkGuard]) -> list[tuple[str, Any]]:
    made: list[dict[str, Any]] = []
    for guard in guards:
        made.append({"function": guard.function, "columns": list(guard.columns), "body": guard.body})
        if guard.deferred:
            made[-1]["deferred"] = True
    return [("link_checks", made)] if made else []


OPERATIONS: Final = (
    EnableTenantRlsOp,
    OpenSharedTableOp,
    DisableTenantRlsOp,
    SuspendTenantRlsOp,
    SetUpTenantRlsOp,
    RemoveTenantRlsOp,
    SecureTenantViewsOp,
)


def _run(operations: Operations, operation: TenantRlsOp) -> None:
    impl = operations.migration_context.impl
    for statement in operation.statements():
        if impl.as_sql:
            impl.static_output(
                statement + impl.command_terminator
            )  # as it is, whatever the driver does to percent signs
        else:
            # DDL() has no parameters, so colons are colons; percent signs are formatted once.
            impl.execute(DDL(statement.replace("%", "%%")))


for _one in OPERATIONS:
    Operations.implementation_for(_one)(_run)
