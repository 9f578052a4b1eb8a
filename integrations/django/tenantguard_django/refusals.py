"""Errors of views as responses: the challenge and the problem document that the core's middleware gives.

A refusal (401, 403, 502, 503) is an answer. An error of the app's own making is not: Django handles it as any other
exception, with its page, its signal and its log.
"""

import logging

from django.http import HttpRequest, HttpResponse

from tenantguard.errors import InsufficientScope, TenantGuardError
from tenantguard.guard import TenantGuard
from tenantguard.problems import Refusals
from tenantguard_django.exchange import response_of

__all__ = ["Answers", "note_refusal", "noted_refusal"]

logger = logging.getLogger("tenantguard.middleware")

_NOTED = "_tenantguard_refusal"


def note_refusal(request: HttpRequest, error: InsufficientScope) -> None:
    """Note why a framework will refuse a request in its own words, so that the challenge can say it in the RFC's."""
    setattr(request, _NOTED, error)


def noted_refusal(request: HttpRequest) -> InsufficientScope | None:
    """Return what was noted for a request."""
    found: InsufficientScope | None = getattr(request, _NOTED, None)
    return found


class Answers:
    """Makes the responses of a guard's refusals."""

    def __init__(self, guard: TenantGuard) -> None:
        rules = guard.rules
        self._refusals = Refusals(
            realm=rules.realm,
            resource_metadata=None if rules.resource is None else rules.resource.url,
            dpop_algorithms=None if rules.dpop is None else rules.dpop.algorithms,
        )

    def to(self, request: HttpRequest, exception: BaseException) -> HttpResponse | None:
        """Return the response to a request whose view raised an exception; ``None`` leaves it to Django."""
        while isinstance(exception, BaseExceptionGroup) and len(exception.exceptions) == 1:
            exception = exception.exceptions[0]
        if not isinstance(exception, TenantGuardError) or exception.status == 500:
            return None
        level = logging.ERROR if exception.status > 500 else logging.INFO
        logger.log(level, "request refused: %s: %s", type(exception).__name__, exception)
        status, headers, body = self._refusals.answer(exception, scheme=_scheme(request))
        return response_of(
            [
                {"type": "http.response.start", "status": status, "headers": headers},
                {"type": "http.response.body", "body": body},
            ]
        )

    def challenge(self, request: HttpRequest, error: InsufficientScope) -> str:
        """Return the value of ``WWW-Authenticate`` for a refusal that a framework words itself."""
        return ", ".join(self._refusals.challenges(error, scheme=_scheme(request)))


def _scheme(request: HttpRequest) -> str:
    return "DPoP" if str(request.META.get("HTTP_AUTHORIZATION", ""))[:5].lower() == "dpop " else "Bearer"
