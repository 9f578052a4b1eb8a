"""What an app says about its tasks, and what that leaves of a capsule.

A task is declared twice: where it is started and where it runs. The two are often the same code, but not while a new
version is rolled out, and never where a producer was taken over. A job gets what both allow.
"""

from time import time
from typing import Final, NamedTuple

import msgspec

from tenantguard.errors import JobRefused
from tenantguard.identity import Identity
from tenantguard.jobs.capsules import Capsule

__all__ = ["MAX_AGE", "UNDECLARED", "JobDeclaration", "as_declared", "narrowed_to", "same_service"]

MAX_AGE: Final = 24 * 3600.0
"""Seconds for which a job may wait, unless declared otherwise."""


class JobDeclaration(NamedTuple):
    """What a task was declared with.

    Args:
        scopes: the most that it may do.
        max_age: seconds for which it may wait.
        runs_as: as whom it runs where nobody is bound when it is started, as scheduled work.
        unguarded: why it runs without any identity; ``None`` for all others.
    """

    scopes: frozenset[str] = frozenset()
    max_age: float = MAX_AGE
    runs_as: Identity | None = None
    unguarded: str | None = None


UNDECLARED: Final = JobDeclaration()
"""Of a task that was not declared: it runs in its caller's tenant, without any right of it."""


def as_declared(capsule: Capsule, declaration: JobDeclaration) -> Capsule:
    """Return the capsule with what the worker's own declaration of its task allows: who sealed it may have said more.

    Raises:
        JobRefused: it has waited longer than declared here, or is of scheduled work that is not declared here.
    """
    if capsule.issued_at + declaration.max_age <= time():
        raise JobRefused("The job has waited longer than it is declared for here.", reason="expired")
    identity, runs_as = capsule.identity, declaration.runs_as
    if capsule.scheduled:
        if runs_as is None or not same_service(identity, runs_as):
            raise JobRefused("The task is not declared to run as this service here.", reason="declaration")
        identity = narrowed_to(identity, runs_as.scopes)
    else:
        identity = narrowed_to(identity, declaration.scopes)
        if declaration is UNDECLARED:
            identity = msgspec.structs.replace(identity, authorization_details=())
    expires_at = min(capsule.expires_at, capsule.issued_at + declaration.max_age)
    return msgspec.structs.replace(capsule, identity=identity, expires_at=expires_at)


def narrowed_to(identity: Identity, scopes: frozenset[str]) -> Identity:
    """Return the identity with those of the scopes that it has."""
    return msgspec.structs.replace(identity, scopes=identity.scopes & scopes)


def same_service(identity: Identity, runs_as: Identity) -> bool:
    """True if both are the same service, acting for itself in the same part of the same tenant."""
    tenant, declared = identity.tenant, runs_as.tenant
    return (
        identity.subject == runs_as.subject
        and identity.actor == runs_as.actor
        and not identity.prior_actors
        and identity.dimensions == runs_as.dimensions
        and (tenant is None if declared is None else tenant is not None and tenant.id == declared.id)
    )
