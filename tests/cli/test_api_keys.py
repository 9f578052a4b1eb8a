"""``tenantguard api-keys``: the main flow in processes of its own, the rest through click's runner."""

import json
import os
import pty
import re
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result
from tenantguard_redis import RedisRevocations

from tenantguard import Revocations
from tenantguard.cli.main import tenantguard
from tenantguard.errors import ExpiredToken, RevokedToken
from tenantguard.identity import Identity
from tenantguard.tokens.api_keys import ApiKeys, SqlApiKeyStore

KEY = re.compile(r"tgk_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}")
COMMAND = [sys.executable, "-m", "tenantguard.cli"]


def environment(**changes: str) -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if name != "NO_COLOR" and not name.startswith("TENANTGUARD_")
    }
    return clean | changes


def verify(url: str, key: str) -> Identity:
    async def work() -> Identity:
        store = SqlApiKeyStore(url)
        try:
            return await ApiKeys(store).verify(key)
        finally:
            await store.aclose()

    return anyio.run(work)


# --- the main flow, as operators run it ----------------------------------------------------------------------


def test_a_key_is_minted_listed_rotated_and_revoked_on_postgresql(postgres_url: str) -> None:
    everything: list[str] = []

    def operator(*arguments: str) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [*COMMAND, "api-keys", *arguments],
            env=environment(TENANTGUARD_DATABASE_URL=postgres_url),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        everything.append(ran.stderr + (ran.stdout if arguments[0] not in ("mint", "rotate") else ""))
        return ran

    operator("create-table")
    minted = operator(
        "mint", "--service", "invoice-sync", "--tenant", "acme", "--scope", "invoices:read", "--expires-in", "90d"
    )
    assert KEY.fullmatch(minted.stdout.removesuffix("\n")), "stdout holds the key alone"
    old = minted.stdout.strip()
    identity = verify(postgres_url, old)
    assert identity.tenant is not None
    assert (identity.actor.id, identity.tenant.id, identity.scopes) == ("invoice-sync", "acme", {"invoices:read"})
    assert identity.expires_at == pytest.approx(time.time() + 90 * 86400, abs=30)

    new = operator("rotate", old.split("_")[1], "--overlap", "5m").stdout.strip()
    assert verify(postgres_url, new).actor == identity.actor
    assert verify(postgres_url, old).expires_at == pytest.approx(time.time() + 300, abs=30)

    operator("revoke", old.split("_")[1])
    with pytest.raises(RevokedToken):
        verify(postgres_url, old)

    listed = operator("list").stdout.splitlines()
    assert listed[0].split() == ["ID", "SERVICE", "TENANT", "SCOPES", "EXPIRES", "LAST", "USED", "STATE"]
    states = {line.split()[0]: line.split()[-1] for line in listed[1:]}
    assert states == {old.split("_")[1]: "revoked", new.split("_")[1]: "active"}
    operator("list", "--json")

    shown = "\n".join(everything)
    for key in (old, new):
        assert key.split("_")[2][:43] not in shown
    assert "\x1b" not in shown


def on_terminal(*arguments: str, **changes: str) -> str:
    """Run a command whose output is a terminal, and return what it shows."""
    terminal, inside = pty.openpty()
    try:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=inside, stderr=inside, env=environment(**changes))
    finally:
        os.close(inside)
    shown = b""
    while True:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        shown += read
    os.close(terminal)
    assert process.wait(30) == 0
    return shown.decode()


def test_a_terminal_gets_colours_unless_it_wants_none(database: str, minted: str) -> None:
    coloured = on_terminal("api-keys", "list", TENANTGUARD_DATABASE_URL=database)
    assert "\x1b[32mactive" in coloured
    plain = on_terminal("api-keys", "list", TENANTGUARD_DATABASE_URL=database, NO_COLOR="1")
    assert "active" in plain
    assert "\x1b" not in plain


# --- the rest ------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/keys.db"
    assert run("create-table", "--database", url).exit_code == 0
    return url


def run(*arguments: str, **env: str) -> Result:
    unset: dict[str, str | None] = dict.fromkeys(
        ("TENANTGUARD_DATABASE_URL", "TENANTGUARD_API_KEY_PREFIX", "NO_COLOR"), None
    )
    result = CliRunner().invoke(tenantguard, ["api-keys", *arguments], env={**unset, **env}, prog_name="tenantguard")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def minted(database: str) -> str:
    result = run("mint", "--database", database, "--service", "invoice-sync", "--tenant", "acme", "--scope", "a b")
    assert result.exit_code == 0
    return result.stdout.strip()


def id_of(key: str) -> str:
    return key.split("_")[1]


def records(database: str, *arguments: str) -> list[dict[str, object]]:
    result = run("list", "--database", database, "--json", *arguments)
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def test_mint_prints_the_key_on_stdout_and_the_hints_on_stderr(database: str) -> None:
    result = run("mint", "--database", database, "--service", "export", "--tenant", "acme", "--expires-in", "1w2d")
    assert KEY.fullmatch(result.stdout.strip())
    assert id_of(result.stdout) in result.stderr
    assert "not shown again" in result.stderr
    assert not KEY.search(result.stderr)


def test_mint_prints_json_on_demand(database: str) -> None:
    result = run(
        *("mint", "--database", database, "--service", "copilot", "--no-tenant", "--actor-type", "agent"),
        *("--scope", "b", "--scope", "a c", "--expires-in", "1h30m", "--name", "The copilot", "--json"),
    )
    answer = json.loads(result.stdout)
    created = answer["created_at"]
    assert created == pytest.approx(time.time(), abs=30)
    assert answer == {
        "key": answer["key"],
        "id": id_of(answer["key"]),
        "service": "copilot",
        "tenant": None,
        "scopes": ["a", "b", "c"],
        "actor_type": "agent",
        "name": "The copilot",
        "state": "active",
        "created_at": created,
        "expires_at": created + 5400,
        "revoked_at": None,
        "last_used_at": None,
        "replaces": None,
    }
    assert verify(database, answer["key"]).token_id == answer["id"]


def test_keys_have_the_prefix_of_the_app(database: str) -> None:
    arguments = ("mint", "--database", database, "--service", "export", "--tenant", "acme")
    assert run(*arguments, "--prefix", "acme").stdout.startswith("acme_")
    result = run(*arguments, TENANTGUARD_API_KEY_PREFIX="globex")
    assert result.stdout.startswith("globex_")
    rotated = run("rotate", "--database", database, id_of(result.stdout), "--prefix", "globex")
    assert rotated.stdout.startswith("globex_")


def test_keys_are_listed_by_tenant_service_and_state(database: str, minted: str) -> None:
    run("mint", "--database", database, "--service", "export", "--tenant", "globex")
    run("mint", "--database", database, "--service", "export", "--no-tenant")
    run("revoke", "--database", database, id_of(minted))

    def services(*arguments: str) -> list[object]:
        return [(record["service"], record["tenant"]) for record in records(database, *arguments)]

    assert len(services()) == 3
    assert services("--tenant", "globex") == [("export", "globex")]
    assert services("--no-tenant") == [("export", None)]
    assert services("--service", "invoice-sync") == [("invoice-sync", "acme")]
    assert services("--state", "revoked") == [("invoice-sync", "acme")]
    assert len(services("--state", "active")) == 2
    assert services("--state", "expired") == []


def test_an_empty_list_says_so_and_leaves_stdout_empty(database: str) -> None:
    result = run("list", "--database", database)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "no such keys" in result.stderr
    assert records(database) == []


def test_the_list_shows_expiry_last_use_and_state_and_neither_key_nor_digest(database: str, minted: str) -> None:
    rotated = run("rotate", "--database", database, id_of(minted), "--overlap", "0s", "--expires-in", "90d").stdout
    verify(database, rotated.strip())
    listed = run("list", "--database", database).stdout
    active, expired = sorted(listed.splitlines()[1:], key=lambda line: line.rsplit(maxsplit=1)[-1])
    assert re.fullmatch(r"\w{16}  invoice-sync  acme    a b     \d{4}-\d\d-\d\d \d\d:\d\dZ  never +expired", expired)
    assert re.fullmatch(
        r"\w{16}  invoice-sync  acme    a b     \d{4}-\d\d-\d\d \d\d:\d\dZ  \d{4}-\d\d-\d\d \d\d:\d\dZ  active", active
    )
    everything = listed + run("list", "--database", database, "--json").stdout
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        digests = [row[0] for row in connection.execute("SELECT secret_hash FROM tenantguard_api_keys")]
    connection.close()
    assert len(digests) == 2
    for digest in digests:
        assert digest.hex() not in everything
    for key in (minted, rotated.strip()):
        assert key.split("_")[2][:43] not in everything
    assert "hash" not in everything


def test_what_is_listed_can_not_write_to_the_terminal(database: str, minted: str) -> None:
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE tenantguard_api_keys SET service = ?", ("\x1b]0;owned\x07\x1b[2Jx",))
    connection.close()
    listed = run("list", "--database", database)
    assert listed.exit_code == 0
    assert "\x1b" not in listed.output
    assert "\x07" not in listed.output


def test_rotate_prints_the_new_key_and_ends_the_old_one_after_the_overlap(database: str, minted: str) -> None:
    result = run("rotate", "--database", database, id_of(minted))
    new = result.stdout.strip()
    assert KEY.fullmatch(new)
    assert f"in place of {id_of(minted)}" in result.stderr
    assert verify(database, new).expires_at is None
    assert verify(database, minted).expires_at == pytest.approx(time.time() + 3600, abs=30)
    assert run("rotate", "--database", database, id_of(new), "--overlap", "0s", "--json").exit_code == 0
    with pytest.raises(ExpiredToken):
        verify(database, new)


def test_revoke_says_what_it_did(database: str, minted: str) -> None:
    assert "is revoked" in run("revoke", "--database", database, id_of(minted)).stderr
    again = run("revoke", "--database", database, id_of(minted), "--json")
    assert json.loads(again.stdout) == {"id": id_of(minted), "state": "revoked"}
    with pytest.raises(RevokedToken):
        verify(database, minted)


def test_revoke_reaches_workers_through_redis(database: str, minted: str, redis_url: str) -> None:
    identity = verify(database, minted)
    feed = f"revocations-{uuid.uuid4().hex}"

    def revoked_in_a_worker() -> bool:
        worker = Revocations(feed=RedisRevocations(redis_url, name=feed))
        try:
            anyio.run(worker.ready)
            return worker.revoked(identity)
        finally:
            worker.close()

    assert not revoked_in_a_worker()
    result = run("revoke", "--database", database, id_of(minted), "--feed", feed, TENANTGUARD_REDIS_URL=redis_url)
    assert result.exit_code == 0, result.output
    assert revoked_in_a_worker()


def test_a_redis_that_is_not_there_is_said_and_the_key_is_revoked_all_the_same(database: str, minted: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        url = f"redis://:pass-word@127.0.0.1:{taken.getsockname()[1]}"
        result = run("revoke", "--database", database, id_of(minted), "--redis", url)
    assert result.exit_code == 1
    assert "Redis" in result.stderr
    assert "pass-word" not in result.output
    with pytest.raises(RevokedToken):
        verify(database, minted)


def test_the_table_may_have_another_name(database: str) -> None:
    own = ("--database", database, "--table", "service_keys")
    assert run("create-table", *own).exit_code == 0
    assert run("mint", *own, "--service", "export", "--tenant", "acme").exit_code == 0
    assert records(database) == []
    assert len(records(database, "--table", "service_keys")) == 1


# --- exit codes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mint", "--tenant", "acme"), "--service"),
        (("mint", "--service", "export"), "--no-tenant"),
        (("mint", "--service", "export", "--tenant", "acme", "--no-tenant"), "--no-tenant"),
        (("mint", "--service", "export", "--tenant", "a b"), "Use 1 to 128 letters"),
        (("mint", "--service", "", "--tenant", "acme"), "printable characters"),
        (("mint", "--service", "export", "--tenant", "acme", "--scope", 'a"b'), "A scope is"),
        (("mint", "--service", "export", "--tenant", "acme", "--expires-in", "90"), "90d, 12h"),
        (("mint", "--service", "export", "--tenant", "acme", "--expires-in", "0s"), "expires_in"),
        (("mint", "--service", "export", "--tenant", "acme", "--expires-in", "999999999w"), "hundred years"),
        (("mint", "--service", "export", "--tenant", "acme", "--actor-type", "human"), "actor-type"),
        (("mint", "--service", "export", "--tenant", "acme", "--prefix", "A"), "lower-case"),
        (("list", "--tenant", "acme", "--no-tenant"), "not both"),
        (("list", "--state", "lost"), "state"),
        (("rotate",), "ID"),
        (("rotate", "short"), "16 letters and digits"),
        (("revoke", "0" * 17), "16 letters and digits"),
        (("create-table", "--table", "a b"), "plain name"),
        (("unknown",), "unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_call_exits_with_2_and_says_what_is_wrong(database: str, arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments, TENANTGUARD_DATABASE_URL=database)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert "Usage: tenantguard api-keys" in result.stderr
    assert result.stdout == ""


def test_a_key_that_is_given_as_an_id_is_not_shown(database: str, minted: str) -> None:
    for command in ("revoke", "rotate"):
        result = run(command, "--database", database, minted)
        assert result.exit_code == 2
        assert minted.split("_")[2][:43] not in result.output


def test_a_database_must_be_named() -> None:
    result = run("list")
    assert result.exit_code == 2
    assert "TENANTGUARD_DATABASE_URL" in result.stderr


@pytest.mark.parametrize(
    "url", ["no url", "sqlite://", "postgresql+asyncpg://app:pass-word@db/app", "nodb://app:pass-word@db/app"]
)
def test_an_unusable_database_exits_with_2_without_showing_its_password(url: str) -> None:
    result = run("list", "--database", url)
    assert result.exit_code == 2
    assert "pass-word" not in result.output


def test_what_fails_exits_with_1_and_says_why(tmp_path: Path, database: str, minted: str) -> None:
    missing = run("list", "--database", f"sqlite:///{tmp_path}/other.db")
    assert missing.exit_code == 1
    assert "tenantguard api-keys create-table" in missing.stderr
    unknown = run("revoke", "--database", database, "0" * 16)
    assert unknown.exit_code == 1
    assert "no API key with this id" in unknown.stderr
    run("revoke", "--database", database, id_of(minted))
    ended = run("rotate", "--database", database, id_of(minted))
    assert ended.exit_code == 1
    assert "Mint a new one" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("command", ["", "create-table", "mint", "list", "rotate", "revoke"])
def test_every_command_has_help(command: str) -> None:
    for option in ("--help", "-h"):
        result = run(*filter(None, (command, option)))
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: tenantguard api-keys {command}")
