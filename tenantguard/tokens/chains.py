"""Which delegation chains are accepted: how long, through whom, and that they tell a history.

A chain grows by one actor with each service that calls on. One that is too long, or that names a party twice, is what a
loop of services leaves behind. Source: RFC 8693, section 4.1.
"""

from collections.abc import Iterable
from typing import Final, final

from tenantguard.errors import ConfigurationError, InvalidToken
from tenantguard.identity import Identity
from tenantguard.tokens.claim_values import MAX_ACTORS

__all__ = ["DEFAULT_MAX_ACTORS", "ChainRules"]

DEFAULT_MAX_ACTORS: Final = 5


@final
class ChainRules:
    """What delegation chains of accepted tokens may be.

    Args:
        max_actors: most actors, the subject not counted, 1 to 8.
        trusted_actors: the ids of all services and agents that may act for somebody; ``None`` trusts all whom the
            issuer let act.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    __slots__ = ("max_actors", "trusted_actors")

    def __init__(self, max_actors: int = DEFAULT_MAX_ACTORS, trusted_actors: Iterable[str] | None = None) -> None:
        if isinstance(max_actors, bool) or not isinstance(max_actors, int) or not 1 <= max_actors <= MAX_ACTORS:
            raise ConfigurationError(
                f"max_actors is no whole number from 1 to {MAX_ACTORS}.", mend=f"For example {DEFAULT_MAX_ACTORS}."
            )
        if isinstance(trusted_actors, str):
            raise ConfigurationError("trusted_actors is a single text.", mend='Give a list: ["documents-app"].')
        self.max_actors = max_actors
        self.trusted_actors = None if trusted_actors is None else frozenset(trusted_actors)

    def check(self, identity: Identity) -> None:
        """Refuse an identity whose chain is not accepted.

        Raises:
            InvalidToken: it is too long, names a party twice, or goes through somebody who is not trusted.
        """
        if not identity.is_delegated:
            return
        actors = (identity.actor, *identity.prior_actors)
        if len(actors) > self.max_actors:
            raise InvalidToken(
                f"The token's delegation chain names {len(actors)} actors, and {self.max_actors} are accepted.",
                reason="chain",
                mend="Call with fewer services in between, or raise TenantGuard(max_actors=...).",
            )
        parties = (identity.subject, *actors)
        if len({(party.issuer, party.id) for party in parties}) != len(parties):
            raise InvalidToken("The token's delegation chain names a party twice.", reason="chain")
        if self.trusted_actors is not None and any(actor.id not in self.trusted_actors for actor in actors):
            raise InvalidToken(
                "An actor of the token's delegation chain is not trusted here.",
                reason="chain",
                mend="Add it to TenantGuard(trusted_actors=[...]).",
            )

    def __repr__(self) -> str:
        return f"ChainRules(max_actors={self.max_actors})"
