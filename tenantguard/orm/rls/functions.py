"""The schema ``tenantguard`` in the database: the functions that tell policies whose transaction it is.

The tenant stands in the setting ``tenantguard.tenant``, which ends with the transaction. It is set *plain*, or *sealed*
with an HMAC that only a holder of the key can make; then a function that runs with its owner's rights verifies it with
a key that only its owner can read. Without a setting, or with a wrong seal, every function raises: none returns NULL
for a tenant. `tenantguard.orm.rls.seal` makes the values.
"""

from collections.abc import Mapping
from typing import Final

__all__ = ["FUNCTIONS", "KEYS_TABLE", "MAX_AGE", "SETTING", "TRANSACTION", "bodies", "function_statements"]

SETTING: Final = "tenantguard.tenant"
KEYS_TABLE: Final = "tenantguard.seal_keys"
MAX_AGE: Final = 300
"""Seconds that a seal may be older or younger than the transaction: what clocks may differ by."""

TRANSACTION: Final = (
    "pg_backend_pid()::text || '-' || (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint::text"
)
"""What is of one transaction alone, without giving it an id, which would make it one that writes."""

_SIGNATURE: Final = "LANGUAGE plpgsql {volatility} PARALLEL RESTRICTED{definer} SET search_path = pg_catalog, pg_temp"

_PLAIN: Final = """
DECLARE
  given text := current_setting('tenantguard.tenant', true);
BEGIN
  IF given IS NULL OR given = '' THEN
    RAISE insufficient_privilege USING MESSAGE = 'no tenant is set for this transaction';
  END IF;
  RETURN given;
END
"""

# head: key id, backend, time and HMAC; body: what current_tenant() and current_scope() read.
_SEALED: Final = f"""
DECLARE
  given text := current_setting('tenantguard.tenant', true);
  head text := split_part(given, ' ', 1);
  body text := substr(given, length(head) + 2);
  signed bytea := convert_to(left(head, -65) || ' ' || body, 'UTF8');
  key tenantguard.seal_keys;
BEGIN
  IF given IS NULL OR given = '' THEN
    RAISE insufficient_privilege USING MESSAGE = 'no tenant is set for this transaction';
  END IF;
  SELECT * INTO key FROM tenantguard.seal_keys AS k WHERE k.id = split_part(head, '.', 1);
  IF key.id IS NULL OR body = ''
    OR encode(sha256(key.outside || sha256(key.inside || signed)), 'hex') <> right(head, 64) THEN
    RAISE insufficient_privilege USING MESSAGE = 'the tenant of this transaction has no valid seal';
  END IF;
  IF (key.bound_to = 'backend' AND split_part(head, '.', 2) <> pg_backend_pid()::text)
    OR (key.bound_to = 'transaction' AND split_part(head, '.', 2) <> {TRANSACTION})
    OR (key.bound_to = 'time' AND split_part(head, '.', 2) <> '0')
    OR abs(extract(epoch FROM transaction_timestamp()) - split_part(head, '.', 3)::bigint) > key.max_age THEN
    RAISE insufficient_privilege USING MESSAGE = 'the seal of the tenant is of another transaction, connection or time';
  END IF;
  RETURN body;
END
"""

_KEYS: Final = f"""CREATE TABLE IF NOT EXISTS {KEYS_TABLE} (
  id text PRIMARY KEY,
  inside bytea NOT NULL,
  outside bytea NOT NULL,
  bound_to text NOT NULL CHECK (bound_to IN ('backend', 'transaction', 'time')),
  max_age integer NOT NULL
)"""

_TENANT: Final = """
BEGIN
  RETURN split_part(tenantguard.bound(), ' ', 1);
END
"""

_SCOPE: Final = """
DECLARE
  body text := split_part(tenantguard.bound(), ' ', 2);
BEGIN
  IF body = '' THEN
    RETURN NULL;
  END IF;
  RETURN convert_from(decode(body, 'base64'), 'UTF8')::jsonb ->> dimension;
END
"""


def _typed(call: str, type_: str) -> str:
    return f"""
DECLARE
  id text := tenantguard.{call};
BEGIN
  IF id IS NULL THEN
    RETURN NULL;
  END IF;
  IF id::{type_}::text <> id THEN
    RAISE insufficient_privilege USING MESSAGE = 'the id of this transaction is not in canonical form';
  END IF;
  RETURN id::{type_};
END
"""


FUNCTIONS: Final[dict[str, tuple[str, str]]] = {
    "current_tenant()": ("text", _TENANT),
    "current_tenant_integer()": ("bigint", _typed("current_tenant()", "bigint")),
    "current_tenant_uuid()": ("uuid", _typed("current_tenant()", "uuid")),
    "current_scope(dimension text)": ("text", _SCOPE),
    "current_scope_integer(dimension text)": ("bigint", _typed("current_scope(dimension)", "bigint")),
    "current_scope_uuid(dimension text)": ("uuid", _typed("current_scope(dimension)", "uuid")),
}
"""What policies call, by signature: the type that it returns, and its body."""


def bodies(*, sealed: bool) -> dict[str, tuple[str, str]]:
    """Return all functions by signature: the type that each returns, and its body."""
    return {"bound()": ("text", _SEALED if sealed else _PLAIN), **FUNCTIONS}


def function_statements(
    role: str, *, sealed: bool, functions: Mapping[str, tuple[str, str]] | None = None
) -> list[str]:
    """Return the statements that make the schema and its functions. They change nothing where all is there.

    Args:
        role: the app's role, in quotes.
        sealed: whether the setting must be sealed.
        functions: what each returns, and its body, by signature; those of this version if left out.
    """
    made = [
        "CREATE SCHEMA IF NOT EXISTS tenantguard",
        "REVOKE ALL ON SCHEMA tenantguard FROM PUBLIC",
        f"REVOKE ALL ON SCHEMA tenantguard FROM {role}",
        f"GRANT USAGE ON SCHEMA tenantguard TO {role}",
        _KEYS,
        f"REVOKE ALL ON {KEYS_TABLE} FROM PUBLIC",
        f"REVOKE ALL ON {KEYS_TABLE} FROM {role}",
    ]
    for signature, (returns, body) in (bodies(sealed=sealed) if functions is None else functions).items():
        definer = " SECURITY DEFINER" if signature == "bound()" and sealed else " SECURITY INVOKER"
        options = _SIGNATURE.format(volatility="STABLE", definer=definer)
        made.append(
            f"CREATE OR REPLACE FUNCTION tenantguard.{signature} RETURNS {returns} {options} AS $body${body}$body$"
        )
        made.append(f"GRANT EXECUTE ON FUNCTION tenantguard.{signature} TO {role}")
    return made
