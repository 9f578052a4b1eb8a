"""``manage.py tenantguard_rls`` against a real PostgreSQL: what is printed, applied and found."""

import base64
import io
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

from tenantguard import system
from tests.django.login import TENANTGUARD, settings_with
from tests.django.orm.conftest import postgres_settings

OWNER = "rls_command_owner"
DECLARED = {"MODELS": {**TENANTGUARD["MODELS"], "ormtests.Forgotten": {"shared": "made for the other tests"}}}


@pytest.fixture
def owner(postgres_url: str) -> Iterator[str]:
    connections.settings[OWNER] = {**connections.settings["default"], **postgres_settings(postgres_url)}
    role = f"rls_web_{secrets.token_hex(4)}"
    connection = connections[OWNER]
    try:
        run_as_owner(connection, [f"CREATE ROLE {role} LOGIN"])
        with override_settings(TENANTGUARD=settings_with(**DECLARED)):
            for app in ("contenttypes", "auth"):  # what apps without migrations point to
                call_command("migrate", app, database=OWNER, verbosity=0)
            call_command("migrate", database=OWNER, run_syncdb=True, verbosity=0)
            yield role
    finally:
        run_as_owner(connection, [f"DROP OWNED BY {role}", f"DROP ROLE {role}"])
        connection.close()
        del connections.settings[OWNER]
        del connections[OWNER]


def run_as_owner(connection: Any, statements: list[str]) -> None:
    with system("the test's role"), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def rls(*arguments: str) -> tuple[int, str, str]:
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        call_command("tenantguard_rls", *arguments, "--database", OWNER, stdout=out, stderr=err, no_color=True)
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


def test_the_sql_is_printed_without_a_key(owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANTGUARD_RLS_KEY", base64.b64encode(b"k" * 32).decode())
    _, up, _ = rls("sql", "--role", owner)
    assert 'ALTER TABLE "public"."web_document" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY' in up
    assert base64.b64encode(b"k" * 32).decode() not in up
    _, down, _ = rls("sql", "--role", owner, "--down")
    assert "DROP POLICY" in down


def test_apply_asks_for_the_key_of_the_seal(owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENANTGUARD_RLS_KEY", raising=False)
    with pytest.raises(CommandError, match="openssl rand"):
        rls("apply", "--role", owner)
    monkeypatch.setenv("TENANTGUARD_RLS_KEY", "short")
    with pytest.raises(CommandError, match="base64 of 32 bytes"):
        rls("apply", "--role", owner)


def test_it_is_called_wrongly_for_an_unknown_alias_and_for_sqlite(owner: str) -> None:
    with pytest.raises(CommandError, match="no database"):
        call_command("tenantguard_rls", "check", "--role", owner, "--database", "nowhere")
    with pytest.raises(CommandError, match="no PostgreSQL"):
        call_command("tenantguard_rls", "check", "--role", owner, "--plain")


def test_it_connects_as_django_does_with_a_service_and_an_assumed_role(
    owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = connections.settings[OWNER]
    member = f"{owner}_member"
    run_as_owner(connections[OWNER], [f"CREATE ROLE {member} LOGIN NOINHERIT", f"GRANT {given['USER']} TO {member}"])
    services = tmp_path / "services.conf"
    services.write_text(f"[documents]\nhost={given['HOST']}\ndbname={given['NAME']}\nuser={member}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    named = {"NAME": "", "HOST": "", "USER": "", "PORT": "", "OPTIONS": {"service": "documents"}}
    connections.settings["by_service"] = {**given, **named}
    try:
        by_service = ("--role", owner, "--plain", "--database", "by_service")
        with pytest.raises(CommandError, match="permission denied"):
            call_command("tenantguard_rls", "apply", *by_service)
        connections.settings["by_service"]["OPTIONS"]["assume_role"] = given["USER"]
        call_command("tenantguard_rls", "apply", *by_service, stderr=io.StringIO())
    finally:
        connections["by_service"].close()
        del connections["by_service"]
        del connections.settings["by_service"]
        run_as_owner(connections[OWNER], [f"DROP ROLE {member}"])
