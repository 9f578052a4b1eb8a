"""A real Alembic environment in a directory, for the tests: models that change from one revision to the next."""

import importlib
import io
import sys
import textwrap
import uuid
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import MetaData

__all__ = ["AlembicLab"]

ENV = """
    from alembic import context
    from sqlalchemy import create_engine, pool
    from tenantguard.orm.rls.alembic import rls_options

    config = context.config
    options = dict(target_metadata=config.attributes["metadata"], **config.attributes["options"])
    options |= rls_options(role=config.attributes["role"], sealed=config.attributes["sealed"])
    if context.is_offline_mode():
        context.configure(url=config.get_main_option("sqlalchemy.url"), literal_binds=True,
                          dialect_opts={"paramstyle": "named"}, **options)
        with context.begin_transaction():
            context.run_migrations()
    else:
        engine = create_engine(config.attributes["url"], poolclass=pool.NullPool)
        with engine.connect() as connection:
            context.configure(connection=connection, **options)
            with context.begin_transaction():
                context.run_migrations()
"""
SCRIPT = """
    \"\"\"${message}\"\"\"
    from alembic import op
    import sqlalchemy as sa
    ${imports if imports else ""}

    revision = ${repr(up_revision)}
    down_revision = ${repr(down_revision)}
    branch_labels = None
    depends_on = None


    def upgrade():
        ${upgrades if upgrades else "pass"}


    def downgrade():
        ${downgrades if downgrades else "pass"}
"""


class AlembicLab:
    """One environment over one empty database."""

    def __init__(self, directory: Path, url: str, *, driver: str = "psycopg", sealed: bool = True) -> None:
        self.url = url
        self.role = f"app_{uuid.uuid4().hex[:8]}"
        self.sealed = sealed
        (directory / "versions").mkdir()
        (directory / "env.py").write_text(textwrap.dedent(ENV))
        (directory / "script.py.mako").write_text(textwrap.dedent(SCRIPT).lstrip())
        self.versions = directory / "versions"
        self.output = io.StringIO()
        self.config = Config(output_buffer=self.output, stdout=io.StringIO())
        self.config.set_main_option("script_location", str(directory))
        self.config.set_main_option("path_separator", "os")
        self.config.set_main_option("sqlalchemy.url", f"postgresql+{driver}://")
        self.config.attributes.update(url=url.replace(":", f"+{driver}:", 1), role=self.role, sealed=sealed, options={})

    def revise(self, metadata: Any, message: str = "made") -> str:
        """Write a migration to these models. Return it."""
        self.config.attributes["metadata"] = metadata
        made = command.revision(self.config, message, autogenerate=True, rev_id=f"r{len(self.scripts())}")
        return Path(made.path).read_text()

    def scripts(self) -> list[Path]:
        return sorted(self.versions.glob("*.py"))

    def upgrade(self, to: str = "head") -> None:
        self.config.attributes.setdefault("metadata", MetaData())
        command.upgrade(self.config, to)

    def downgrade(self, to: str = "base") -> None:
        command.downgrade(self.config, to)

    def offline(self, step: str, revisions: str) -> str:
        """The SQL script that an upgrade or a downgrade would run."""
        self.config.attributes.setdefault("metadata", MetaData())
        self.output.seek(0)
        self.output.truncate()
        getattr(command, step)(self.config, revisions, sql=True)
        return self.output.getvalue()

    def admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def drop_roles(self, *others: str) -> None:
        with self.admin() as admin:
            for role in (self.role, *others):
                if admin.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None:
                    admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def forget(module: str) -> None:
    sys.modules.pop(module, None)
    importlib.invalidate_caches()
