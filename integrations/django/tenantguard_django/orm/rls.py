"""Wall three for Django: PostgreSQL's row-level security from the classification of the models.

The policies, triggers and functions are the core's (`tenantguard.orm.rls`): the models are written down as SQLAlchemy's
tables with the same classes, and `RlsPlan` does the rest. `EnableRowLevelSecurity` is the migration operation.
`guard_transactions` tells PostgreSQL whose transaction it is: by ``SET LOCAL``, in the same message as ``BEGIN`` with
psycopg 3, so it is gone with the transaction, also on persistent and pooled connections. In autocommit, where each
statement is a transaction, a tenant's statement gets one of its own around it. A system context gets an empty setting,
with which the database refuses every row of tenants: it is for a connection whose role may bypass the policies.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, final

from django.apps import apps
from django.db import connections, router
from django.db.migrations.operations.base import Operation
from sqlalchemy import Column, ForeignKeyConstraint, MetaData, Table
from sqlalchemy.types import NullType

from tenantguard.binding import Binding
from tenantguard.errors import ConfigurationError
from tenantguard.orm import marks
from tenantguard.orm.connections import RAN_RAW
from tenantguard.orm.rls import RlsPlan, Seal
from tenantguard.orm.rls.lines import line_of
from tenantguard.orm.rls.sessions import SessionReset
from tenantguard.orm.rls.tenant_setting import TenantSetting, body_of
from tenantguard_django.orm.classify import NO_GLOBAL, Child, Kind, Owned, Shared, kind_of_model
from tenantguard_django.orm.connections import is_protected, settings_of_aliases
from tenantguard_django.orm.guard import Guard
from tenantguard_django.orm.keys import column_type

__all__ = ["EnableRowLevelSecurity", "Seal", "guard_transactions", "metadata_of", "plan_of"]

_T = TypeVar("_T")


# --- what should be in the database ------------------------------------------------------------------------


def metadata_of(alias: str = "default", columns: Mapping[str, Iterable[str]] | None = None) -> MetaData:
    """Return the tables of the installed models, with their classes, as SQLAlchemy knows them.

    Args:
        alias: the database; models that the routers keep out of it are left out.
        columns: the names of the columns that there are so far, by table; ``None`` for all.

    Raises:
        ConfigurationError: a model's declaration can't serve.
        UnclassifiedTable: a model is not classified.
    """
    metadata = MetaData()
    for model in apps.get_models(include_auto_created=True):
        opts = model._meta
        if opts.proxy or not opts.managed or not router.allow_migrate_model(alias, model):
            continue
        known = None if columns is None else columns.get(opts.db_table)
        if columns is not None and known is None:
            continue
        kind = kind_of_model(model)
        if known is not None and not _key_columns(kind) <= set(known):
            continue  # its key is made by a later migration
        _table(metadata, kind, None if known is None else set(known))
    return metadata


def _key_columns(kind: Kind) -> set[str]:
    if isinstance(kind, Owned):
        return {key.column for key in (kind.key, *kind.narrower)}
    if isinstance(kind, Child):
        return {own for own, _ in kind.pairs} | {key.column for key in kind.narrower}
    return set()


def _info(kind: Kind) -> dict[Any, Any]:
    if isinstance(kind, Shared):
        return marks.shared(kind.reason)
    if isinstance(kind, Child):
        return marks.owned_through(*(own for own, _ in kind.pairs))
    everyone: Any = {NO_GLOBAL: False, None: True}.get(kind.everyone, kind.everyone)
    dimensions = {key.dimension: key.column for key in kind.narrower}
    info = marks.owned(kind.key.column, dimensions=dimensions, global_rows=everyone)
    if kind.wide is not None:
        info |= marks.wide(*sorted(kind.wide.dimensions), reason=kind.wide.reason, writable=kind.wide.writable)
    return info


def _table(metadata: MetaData, kind: Kind, known: set[str] | None) -> None:
    opts = kind.model._meta
    if '"' in opts.db_table:
        raise ConfigurationError(f"The table of {opts.label} is named with quotes.", mend="Name it without.")
    made: list[Any] = []
    narrower = kind.narrower if isinstance(kind, Child) else ()
    for field in opts.local_concrete_fields:
        if known is not None and field.column not in known:
            continue
        type_ = column_type(field) or NullType()
        key = next((one for one in narrower if one.field is field), None)
        info = marks.scope_key(key.dimension) if key is not None else {}
        made.append(Column(field.column, type_, primary_key=field.primary_key, nullable=field.null, info=info))
        if field.remote_field is not None and field.db_constraint:
            target = field.target_field
            owns = isinstance(kind, Child) and kind.field is field
            made.append(
                ForeignKeyConstraint(
                    [field.column],
                    [f"{target.model._meta.db_table}.{target.column}"],
                    use_alter=not owns,  # the order of tables is that of parents and children
                    name=f"{field.column}_fk",
                    deferrable=True,
                    initially="DEFERRED",
                )
            )
    Table(opts.db_table, metadata, *made, info=_info(kind))


def plan_of(
    alias: str = "default",
    *,
    role: str,
    schema: str = "public",
    sealed: bool = True,
    columns: Mapping[str, Iterable[str]] | None = None,
) -> RlsPlan:
    """Return what row-level security should be for the installed models.

    Args:
        alias: the database.
        role: the role that the app logs in as, or that its login is a member of.
        schema: the schema of the tables.
        sealed: whether the setting must be sealed.
        columns: see `metadata_of`.

    Raises:
        ConfigurationError: a model's declaration can't serve.
        UnclassifiedTable: a model is not classified.
    """
    return RlsPlan(metadata_of(alias, columns), role=role, schema=schema, sealed=sealed)


@final
class EnableRowLevelSecurity(Operation):
    """Bring the policies up to date with the models: a migration operation, repeated after changes of models.

    It is for the tables and columns that the migrations have made so far, and does nothing on other databases.

    Args:
        role: the role that the app logs in as, or that its login is a member of. It must not own the tables.
        schema: the schema of the tables.
        sealed: whether the setting must be sealed; see `Seal`.
    """

    reduces_to_sql = True
    reversible = True
    atomic = True
    elidable = False

    def __init__(self, role: str, schema: str = "public", sealed: bool = True) -> None:
        self.role = role
        self.schema = schema
        self.sealed = sealed

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """Return how it is written in a migration."""
        given = {"role": self.role, "schema": self.schema, "sealed": self.sealed}
        return type(self).__qualname__, [], given

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change nothing of the models."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:  # noqa: ARG002
        """Make what is missing, and drop what is outdated."""
        self._run(schema_editor, to_state, down=False)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:  # noqa: ARG002
        """Take it all back."""
        self._run(schema_editor, from_state, down=True)

    def _run(self, editor: Any, state: Any, *, down: bool) -> None:
        connection = editor.connection
        if connection.vendor != "postgresql":
            return
        columns: dict[str, set[str]] = {}  # of all models of a table, which may be more than one
        for model in state.apps.get_models(include_auto_created=True):
            if not model._meta.proxy:
                found = columns.setdefault(model._meta.db_table, set())
                found.update(field.column for field in model._meta.local_concrete_fields)
        plan = plan_of(connection.alias, role=self.role, schema=self.schema, sealed=self.sealed, columns=columns)
        for block in plan.down() if down else plan.up():
            for statement in block:
                editor.execute(statement, params=None)

    def describe(self) -> str:
        """Return what it does, in words."""
        return f"Enable row-level security for the role {self.role}"

    @property
    def migration_name_fragment(self) -> str:
        """Return a part of a migration's name."""
        return "row_level_security"


# --- whose transaction it is -------------------------------------------------------------------------------


def guard_transactions(
    alias: str = "default", *, seal: Seal | None = None, session_reset: SessionReset = "engine"
) -> None:
    """Have every transaction of a protected database tell PostgreSQL whose it is.

    Args:
        alias: the database; it counts for the connections of all threads.
        seal: seals the setting, so that SQL injection can't become another tenant. Without it the setting is plain.
        session_reset: who resets what a persistent or pooled connection keeps when it goes on to another tenant:
            ``"engine"``: this side does; ``"pooler"``: PgBouncer, with ``server_reset_query_always = 1``; ``"off"``:
            nobody, which is logged.

    Raises:
        ConfigurationError: the database is not protected, or none of PostgreSQL's.
    """
    connection: Any = connections[alias]
    if not is_protected(alias) or connection.vendor != "postgresql":
        raise ConfigurationError(
            "guard_transactions() takes a protected database of PostgreSQL.", mend="Call protect(alias) before it."
        )
    driver = "psycopg2" if connection.Database.__name__ == "psycopg2" else "psycopg"
    setting = TransactionSetting(TenantSetting(line_of(driver), seal, session_reset))
    connection.tenantguard.setting = settings_of_aliases[alias] = setting


@final
class _Kept:
    """What is remembered of a driver's connection, also while it is in a pool of psycopg's."""

    __slots__ = ("info",)

    def __init__(self, driver: Any) -> None:
        self.info: dict[str, Any] = driver.__dict__.setdefault("tenantguard_info", {})


@final
class TransactionSetting:
    """Sets the tenant for the running transaction.

    Args:
        setting: tells PostgreSQL.
    """

    __slots__ = ("_setting",)

    def __init__(self, setting: TenantSetting) -> None:
        self._setting = setting

    def run(self, guard: Guard, binding: Binding, execute: Callable[[], _T]) -> _T:
        """Run a statement in a transaction that PostgreSQL knows the tenant of.

        Args:
            guard: the connection's.
            binding: what is bound.
            execute: runs the statement.

        Raises:
            StatementRefused: further tenants are read, which the database could not hold.
            ConfigurationError: the session can't be reset from here.
        """
        connection = guard.connection
        body = body_of(binding, "Use a database alias whose role may bypass row-level security.")
        if not connection.autocommit:
            if guard.told != body:
                self._tell(connection, body, entered=guard.entered)
                guard.told, guard.entered = body, True
            return execute()
        if not body:
            with self._sending(connection) as (kept, driver):
                self._setting.reset(kept, driver, body)
            return execute()
        with connection.wrap_database_errors:
            connection._set_autocommit(False)
        try:
            self._tell(connection, body)
            result = execute()
            with connection.wrap_database_errors:
                connection.connection.commit()
        except BaseException:
            with contextlib.suppress(Exception):  # the connection may be gone; the first error tells
                connection.connection.rollback()
            raise
        finally:
            with contextlib.suppress(Exception):
                connection._set_autocommit(True)
        return result

    def before_untold(self, connection: Any) -> None:
        """Reset the session before Django begins a transaction by a statement of its own, as for a savepoint.

        Args:
            connection: Django's.
        """
        if self._setting.line.is_idle(connection.connection):
            with self._sending(connection) as (kept, driver):
                self._setting.reset(kept, driver)

    def before_raw(self, connection: Any, binding: Binding) -> None:
        """Reset the session before raw SQL runs on the driver's cursor, and again before another tenant's transaction.

        Args:
            connection: Django's.
            binding: what is bound.
        """
        if connection.connection is not None:
            with self._sending(connection) as (kept, driver):
                self._setting.before_raw(kept, driver, binding)

    def _tell(self, connection: Any, body: str, *, entered: bool = False) -> None:
        with self._sending(connection) as (kept, driver):
            if entered:  # a block of system() inside of a tenant's transaction, or the way back
                self._setting.tell(driver, body)
                kept.info[RAN_RAW] = True
            else:
                self._setting.begin(kept, driver, body)

    @contextlib.contextmanager
    def _sending(self, connection: Any) -> Iterator[tuple[_Kept, Any]]:
        with connection.tenantguard.opened(), connection.wrap_database_errors:
            yield _Kept(connection.connection), connection.connection
