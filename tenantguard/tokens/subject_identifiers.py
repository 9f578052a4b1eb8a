"""Whom a security event is about: subject identifiers (RFC 9493), as far as they can be told from tokens.

A token has an issuer, a subject, a session and a tenant; so identifiers that name one of these can be acted upon. An
identifier that can't (an e-mail address, a telephone number) is an error that the transmitter sees, because a
revocation that is taken and does nothing is worse than one that is refused.
"""

from typing import Any, Final, NamedTuple

from tenantguard.tokens.revocation import RevocationKind

__all__ = ["Revoked", "UnusableSubject", "revoked_by"]

MAX_ALIASES: Final = 16


class UnusableSubject(Exception):
    """The subject identifier is malformed, or of a kind that can't be found in tokens. The text holds no value."""


class Revoked(NamedTuple):
    """What a subject identifier names: a kind of revocation, whose id, and the id."""

    kind: RevocationKind
    issuer: str
    id: str


def revoked_by(subject: Any, *, transmitter: str, speaks_for: frozenset[str]) -> list[Revoked]:
    """Return what a subject identifier names.

    Args:
        subject: the ``sub_id`` claim, or the ``subject`` of an event.
        transmitter: who sent it; ids that name no issuer are its own.
        speaks_for: the issuers that it may speak for.

    Raises:
        UnusableSubject: it can't be acted upon, or names a subject of somebody else.

    Source: RFC 9493, section 3; OpenID Shared Signals Framework 1.0, section 3 (complex subjects).
    """
    issuers = [transmitter] if transmitter in speaks_for else sorted(speaks_for)
    if not isinstance(subject, dict):
        raise UnusableSubject("The event has no subject identifier (sub_id).")
    kind = subject.get("format")
    if kind == "complex" or (kind is None and not {"user", "session", "tenant"}.isdisjoint(subject)):
        return _complex(subject, issuers, speaks_for)
    if kind == "aliases":
        return _aliases(subject, transmitter, speaks_for)
    if kind == "iss_sub":
        return [_iss_sub(subject, RevocationKind.SUBJECT, speaks_for)]
    if kind == "opaque":
        # CAEP's examples use it for sessions, others for users: either way nothing of another party is named.
        text = _text(subject, "id")
        return [Revoked(k, i, text) for k in (RevocationKind.SESSION, RevocationKind.SUBJECT) for i in issuers]
    raise UnusableSubject("The event's subject is of a format that tokens do not have; iss_sub and opaque are known.")


def _complex(subject: dict[str, Any], issuers: list[str], speaks_for: frozenset[str]) -> list[Revoked]:
    """The narrowest member decides: a session before its user, a user before its tenant."""
    for name, kind in (
        ("session", RevocationKind.SESSION),
        ("user", RevocationKind.SUBJECT),
        ("tenant", RevocationKind.TENANT),
    ):
        member = subject.get(name)
        if member is None:
            continue
        if not isinstance(member, dict):
            raise UnusableSubject("A member of the event's subject is no subject identifier.")
        if member.get("format") == "iss_sub":
            return [_iss_sub(member, kind, speaks_for)]
        if member.get("format") == "opaque":
            return [Revoked(kind, issuer, _text(member, "id")) for issuer in issuers]
        raise UnusableSubject("A member of the event's subject is of a format that tokens do not have.")
    raise UnusableSubject("The event's subject names no session, user or tenant.")


def _aliases(subject: dict[str, Any], transmitter: str, speaks_for: frozenset[str]) -> list[Revoked]:
    identifiers = subject.get("identifiers")
    if not isinstance(identifiers, list) or not 0 < len(identifiers) <= MAX_ALIASES:
        raise UnusableSubject("The event's subject has no usable identifiers.")
    found: list[Revoked] = []
    for one in identifiers:
        if isinstance(one, dict) and one.get("format") in ("iss_sub", "opaque"):
            found += revoked_by(one, transmitter=transmitter, speaks_for=speaks_for)
    if not found:
        raise UnusableSubject("The event's subject has no identifier of a format that tokens have.")
    return found


def _iss_sub(subject: dict[str, Any], kind: RevocationKind, speaks_for: frozenset[str]) -> Revoked:
    issuer = _text(subject, "iss")
    if issuer not in speaks_for:
        raise UnusableSubject("The event is about a subject of an issuer that its transmitter does not speak for.")
    return Revoked(kind, issuer, _text(subject, "sub"))


def _text(subject: dict[str, Any], name: str) -> str:
    value = subject.get(name)
    if not isinstance(value, str) or not value:
        raise UnusableSubject(f"The event's subject has no {name}.")
    return value
