"""Who may come in: from what a request shows to the identity that it runs as. The long way of the door.

Requests of tokens that were seen before, that are bound to no key and name one tenant, need none of this. All others
come through here, in this order: the token, its possession, the tenant, the tenant's standing.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol, final
from urllib.parse import quote

from tenantguard.bearer import PresentedToken
from tenantguard.errors import InvalidRequest, InvalidToken, TenantRefused
from tenantguard.identity import Identity
from tenantguard.rules import DPOP, RequestRules
from tenantguard.tenancy import check_standing, settle_tenant, tenant_said
from tenantguard.tokens.claims import Verified
from tenantguard.tokens.revocation import Revocations

__all__ = ["Admission", "Admitted", "Verifier"]

Header = tuple[bytes, bytes]
_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~%"


class Verifier(Protocol):
    """What turns a presented token into an identity: `TokenVerifier`, or an app's own."""

    @property
    def revocations(self) -> Revocations:
        """What was revoked."""
        ...

    def cached(self, token: str, /) -> Identity | None:
        """Return the identity of a token that was verified before, is good still, and needs nothing more.

        Never raises, never waits. A token that is bound to a key, or names no tenant, is not returned here.
        """
        ...

    async def verify_all(self, token: str, /) -> Verified:
        """Return the identity of a token, with all tenants that it names.

        Raises:
            AuthenticationError: the token is not good.
            Unavailable: that can't be known now.
        """
        ...


class Admitted(NamedTuple):
    """Who was let in.

    Args:
        identity: whom the request runs as.
        nonce: a nonce for the client's next DPoP proofs, where it is time for a new one.
    """

    identity: Identity
    nonce: str | None = None


@final
class Admission:
    """Lets requests in.

    Args:
        verifier: who verifies tokens.
        rules: what else holds.
        transactions: who verifies transaction tokens.
    """

    __slots__ = ("_rules", "_transactions", "_verifier")

    def __init__(self, verifier: Verifier, rules: RequestRules, transactions: Verifier | None = None) -> None:
        self._verifier = verifier
        self._rules = rules
        self._transactions = transactions

    async def admit(self, presented: PresentedToken, scope: Mapping[str, Any]) -> Admitted:
        """Return whom a request runs as.

        Args:
            presented: the token and how it was presented.
            scope: the ASGI scope.

        Raises:
            AuthenticationError: the token is not good, or its possession is not proven.
            AuthorizationError: the tenant is not the token's, or may not be used.
            Unavailable: that can't be known now.
        """
        rules = self._rules
        verified = await self._verifier.verify_all(presented.token)
        nonce = await self._check_possession(verified.identity, presented, scope)
        said = await tenant_said(rules.tenant_from, scope)
        identity = settle_tenant(verified, said, tenantless=rules.tenantless.cover(scope))
        if identity is not verified.identity:
            self._verifier.revocations.check(identity)  # of one of several tenants nothing was known before
        return Admitted(await check_standing(identity, rules.directory), nonce)

    async def admit_transaction(self, token: str, caller: PresentedToken | None, scope: Mapping[str, Any]) -> Identity:
        """Return whom a request runs as that carries a transaction token.

        Args:
            token: the transaction token.
            caller: the token in the Authorization header, by which the calling service shows itself.
            scope: the ASGI scope.

        Raises:
            AuthenticationError: one of the tokens is not good, or the caller's is no service's own.
            AuthorizationError: the tenant changed on the way, or may not be used.
            Unavailable: that can't be known now.

        Source: draft-ietf-oauth-transaction-tokens, sections 8.2 and 9.13: it does not authenticate who calls.
        """
        rules = self._rules
        assert self._transactions is not None
        verified = await self._transactions.verify_all(token)
        if verified.identity.confirmation is not None:
            raise InvalidToken("The transaction token is bound to a key, which can't be checked.", reason="proof")
        said = await tenant_said(rules.tenant_from, scope)
        identity = settle_tenant(verified, said, tenantless=rules.tenantless.cover(scope))
        if caller is not None:
            await self._check_calling_service(caller, identity, scope)
        return await check_standing(identity, rules.directory)

    async def _check_calling_service(
        self, presented: PresentedToken, identity: Identity, scope: Mapping[str, Any]
    ) -> None:
        verified = await self._verifier.verify_all(presented.token)
        service = verified.identity
        if service.is_delegated or not service.actor.type.is_machine:
            raise InvalidRequest(
                "The request carries a transaction token and somebody else's access token.",
                mend="Beside a transaction token, send the calling service's own token or none.",
            )
        await self._check_possession(service, presented, scope)
        if verified.tenants and (identity.tenant is None or identity.tenant.id not in verified.tenants):
            raise TenantRefused("The calling service belongs to another tenant than the transaction.")
        trusted = self._rules.trusted_actors
        if trusted is not None and service.actor.id not in trusted:
            raise InvalidToken("The calling service is not trusted here.", reason="chain")

    async def recheck(self, identity: Identity, token: str) -> None:
        """Look at the token of an open connection again, and at its tenant.

        Raises:
            TenantGuardError: it would not be let in now.
        """
        verifier = self._verifier if identity.transaction is None else self._transactions
        assert verifier is not None
        verified = await verifier.verify_all(token)
        if identity.tenant is not None:
            verified.choose(identity.tenant.id)
        await check_standing(identity, self._rules.directory)

    async def _check_possession(
        self, identity: Identity, presented: PresentedToken, scope: Mapping[str, Any]
    ) -> str | None:
        """Check that the sender holds the key or certificate that the token is bound to.

        Returns:
            A new nonce for the client, where it is time for one.

        Raises:
            InvalidToken: it does not, or the app can't check that.
        """
        rules = self._rules
        bound = identity.confirmation
        if bound is not None and bound.x5t_s256 is not None:
            if rules.certificates is None:
                raise InvalidToken(
                    "The token is bound to a client certificate, which this app does not look at.",
                    reason="certificate",
                    mend="Set TenantGuard(certificates=ClientCertificates(...)).",
                )
            values = [value for name, value in scope["headers"] if name == rules.certificates.header]
            rules.certificates.check(identity, rules.certificates.thumbprint(scope, values))
        if rules.dpop is not None:
            possession = await rules.dpop.check(
                proofs=[value for name, value in scope["headers"] if name == DPOP],
                token=presented.token,
                identity=identity,
                method=scope.get("method", "GET"),  # a WebSocket opens by GET
                url=_url(scope),
                scheme=presented.scheme,
            )
            return None if possession is None else possession.next_nonce
        if bound is not None and bound.jkt is not None:
            raise InvalidToken(
                "The token is bound to a key, and this app does not check proofs.",
                reason="proof",
                mend="Set TenantGuard(dpop=DPoP()).",
            )
        if bound is not None and bound.x5t_s256 is None:
            raise InvalidToken("The token is bound in a way that can't be checked.", reason="proof")
        return None


def _url(scope: Mapping[str, Any]) -> str:
    """The request's URL without its query, as the client wrote it as far as the server tells."""
    scheme = {"ws": "http", "wss": "https"}.get(scope.get("scheme", "http"), scope.get("scheme", "http"))
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    raw = scope.get("raw_path")
    path = raw.partition(b"?")[0].decode("latin-1") if raw else quote(scope["path"], safe=_PATH_SAFE)
    return f"{scheme}://{hosts[0].decode('latin-1') if len(hosts) == 1 else ''}{path}"
