"""A migration as autogenerate wrote it in version 0.1, shortened. It does the same for ever: do not renew it."""

from alembic import op

import tenantguard.orm.rls.alembic  # noqa: F401

revision = "frozen"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE notes (id int PRIMARY KEY, tenant_id text NOT NULL, after_id int REFERENCES notes)")
    op.execute("CREATE TABLE kinds (id serial PRIMARY KEY)")
    op.set_up_tenant_rls(
        role="frozen_app",
        schemas=["public"],
        sealed=False,
        functions={
            "bound()": ("text", ("\nBEGIN\n  RETURN current_setting('tenantguard.tenant');\nEND\n")),
            "current_tenant()": ("text", ("\nBEGIN\n  RETURN tenantguard.bound();\nEND\n")),
        },
    )
    op.enable_tenant_rls(
        "notes",
        role="frozen_app",
        policies=[
            {"name": "tenantguard_own_1", "using": '"notes"."tenant_id" = (SELECT tenantguard.current_tenant())'},
            {"name": "tenantguard_read_1", "command": "SELECT", "using": '"notes"."tenant_id" = \'every:one %\''},
        ],
        link_checks=[
            {
                "function": "link_1",
                "columns": ["after_id", "id"],
                "body": (
                    "\n"
                    "BEGIN\n"
                    '  IF NOT EXISTS (SELECT FROM "public"."notes" AS p WHERE p."id" = NEW."after_id") THEN\n'
                    "    RAISE insufficient_privilege USING MESSAGE = 'no such row';\n"
                    "  END IF;\n"
                    "  RETURN NULL;\n"
                    "END\n"
                ),
                "deferred": True,
            },
        ],
    )
    op.open_shared_table("kinds", role="frozen_app")
    op.execute("CREATE VIEW note_ids AS SELECT id FROM notes")
    op.secure_tenant_views(["public.note_ids"])


def downgrade() -> None:
    op.execute("DROP VIEW note_ids")
    op.suspend_tenant_rls("notes")
    op.disable_tenant_rls("kinds", role="frozen_app")
    op.disable_tenant_rls("notes", role="frozen_app")
    op.remove_tenant_rls(
        role="frozen_app",
        schemas=["public"],
        functions=["bound()", "current_tenant()"],
        public_temporary=True,
        public_create=["public"],
    )
    op.execute("DROP TABLE kinds")
    op.execute("DROP TABLE notes")
