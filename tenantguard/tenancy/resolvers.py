"""Where a request may say which tenant it means: a header, the host's name, the path.

What it says decides nothing by itself. It must agree with the token, and with whatever else the request says; for a
token of several tenants it chooses one of them. Ids are compared exactly, after they were checked as every id is.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol, final

from tenantguard.errors import ConfigurationError, InvalidRequest, TenantRefused, UnknownTenant
from tenantguard.identity import validate_tenant_id
from tenantguard.paths import path_of

__all__ = ["TenantFromHeader", "TenantFromHost", "TenantFromPath", "TenantResolver", "tenant_said"]

Aliases = Mapping[str, str] | Callable[[str], Awaitable[str | None]]
"""Tenant ids by the names that stand in hosts and paths; or an async function that looks them up."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_PATTERN: Final = re.compile(rf"\{{tenant\}}((?:\.{_LABEL})+)")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATH_PATTERN: Final = re.compile(r"(/(?:[A-Za-z0-9._~-]+/)*)\{tenant\}(?:/\*)?")


class TenantResolver(Protocol):
    """One place where a request may say its tenant."""

    async def resolve(self, scope: Mapping[str, Any], /) -> str | None:
        """Return the tenant's id that the request of an ASGI scope says here; ``None`` if it says nothing.

        Raises:
            InvalidRequest: it says it in a way that is not allowed, for example twice.
            UnknownTenant: it says a name that stands for no tenant.
        """
        ...


def _values(scope: Mapping[str, Any], name: bytes) -> list[bytes]:
    return [value for header, value in scope["headers"] if header == name]


async def _look_up(aliases: Aliases | None, said: str) -> str:
    if aliases is None:
        return said
    found = aliases.get(said) if isinstance(aliases, Mapping) else await aliases(said)
    if found is None:
        raise UnknownTenant("The request names a tenant that is not known here.")
    return found


@final
class TenantFromHeader:
    """The tenant's id in a header.

    Args:
        name: the header's name.

    Raises:
        ConfigurationError: it can't be a header's name.
    """

    __slots__ = ("name",)

    def __init__(self, name: str = "x-tenant-id") -> None:
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or name.lower() == "authorization":
            raise ConfigurationError("The tenant header's name is not usable.", mend='For example "x-tenant-id".')
        self.name = name.lower().encode()

    async def resolve(self, scope: Mapping[str, Any]) -> str | None:
        """Return the header's value."""
        values = _values(scope, self.name)
        if len(values) > 1:
            raise InvalidRequest("The request has several tenant headers.", mend="Send one or none.")
        try:
            return values[0].decode() if values else None
        except UnicodeDecodeError:
            raise TenantRefused("The tenant header is not UTF-8.") from None

    def __repr__(self) -> str:
        return f"TenantFromHeader({self.name.decode()!r})"


@final
class TenantFromHost:
    """The tenant in the first label of the host's name: ``TenantFromHost("{tenant}.example.com")``.

    Hosts that do not fit the pattern say nothing. Names of hosts know no capitals, so ids that have some need aliases.

    Args:
        pattern: ``{tenant}`` and the rest of the name, without a port.
        aliases: tenant ids by the label, where the label is not the id itself.

    Raises:
        ConfigurationError: the pattern is not of this form.
    """

    __slots__ = ("_aliases", "_label", "pattern")

    def __init__(self, pattern: str, *, aliases: Aliases | None = None) -> None:
        match = _HOST_PATTERN.fullmatch(pattern) if isinstance(pattern, str) else None
        if match is None:
            raise ConfigurationError(
                "The host pattern is not of the form {tenant}.example.com, in lower case.",
                mend='For example TenantFromHost("{tenant}.example.com").',
            )
        self.pattern = pattern
        self._label = re.compile(f"({_LABEL}){re.escape(match[1])}\\.?(?::[0-9]{{1,5}})?")
        self._aliases = aliases

    async def resolve(self, scope: Mapping[str, Any]) -> str | None:
        """Return the tenant of the ``Host`` header."""
        values = _values(scope, b"host")
        if len(values) > 1:
            raise InvalidRequest("The request has several Host headers.", mend="Send one.")
        match = self._label.fullmatch(values[0].decode("latin-1").lower()) if values else None
        return None if match is None else await _look_up(self._aliases, match[1])

    def __repr__(self) -> str:
        return f"TenantFromHost({self.pattern!r})"


@final
class TenantFromPath:
    """The tenant in a segment of the path: ``TenantFromPath("/t/{tenant}/*")``.

    The path is the one that the router sees: decoded, without the mount's ``root_path``. Paths that do not fit the
    pattern say nothing.

    Args:
        pattern: a prefix of plain segments and ``{tenant}``; what follows may be written as ``/*`` or left out.
        aliases: tenant ids by the segment, where the segment is not the id itself.

    Raises:
        ConfigurationError: the pattern is not of this form.
    """

    __slots__ = ("_aliases", "_prefix", "pattern")

    def __init__(self, pattern: str, *, aliases: Aliases | None = None) -> None:
        match = _PATH_PATTERN.fullmatch(pattern) if isinstance(pattern, str) else None
        if match is None:
            raise ConfigurationError(
                "The path pattern is not of the form /t/{tenant}/*.",
                mend='For example TenantFromPath("/t/{tenant}/*").',
            )
        self.pattern = pattern
        self._prefix = match[1]
        self._aliases = aliases

    async def resolve(self, scope: Mapping[str, Any]) -> str | None:
        """Return the tenant of the path."""
        path = path_of(scope)
        if not path.startswith(self._prefix):
            return None
        segment = path[len(self._prefix) :].partition("/")[0]
        return await _look_up(self._aliases, segment) if segment else None

    def __repr__(self) -> str:
        return f"TenantFromPath({self.pattern!r})"


async def tenant_said(resolvers: Iterable[TenantResolver], scope: Mapping[str, Any]) -> str | None:
    """Return the tenant that a request says, wherever it says it; ``None`` if it says none.

    Raises:
        TenantRefused: it says two different ones, or one whose name stands for none.
        InvalidTenantId: what it says is no usable id.
        InvalidRequest: it says it in a way that is not allowed.
    """
    said: str | None = None
    for resolver in resolvers:
        found = await resolver.resolve(scope)
        if found is None:
            continue
        if said is not None and found != said:
            raise TenantRefused("The request names two tenants.", mend="Name one, or the same everywhere.")
        said = found
    return None if said is None else validate_tenant_id(said)
