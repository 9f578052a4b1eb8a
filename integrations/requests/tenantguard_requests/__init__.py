"""tenantguard for requests: a session that gives each request to a destination its token, and no other any.

requests sends every hop of a redirect through `Session.send`, and asks `Session.rebuild_auth` what a redirected request
may keep. These two are where the session looks. Every decision is the core's.
"""

from collections.abc import Iterable
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from urllib3.util import parse_url

from tenantguard.outbound import (
    HARMLESS_HEADERS,
    Carrier,
    Destination,
    Destinations,
    TokenExchange,
    headers_as_bytes,
    refuse_body,
)

__all__ = ["DestinationSession"]

_REDIRECTED: Final = "_tenantguard_redirected"
"""Marks a request that another origin sent here: it carries nobody, since that origin chose what is called."""
_LEFT: Final = "_tenantguard_left"
"""Marks a request that began at a destination and was sent elsewhere."""
_BODY: Final = "_tenantguard_body"
"""Marks a request that would take a body elsewhere that was meant for a destination."""


class DestinationSession(requests.Session):
    """A `requests.Session` that carries the bound caller to declared destinations. It blocks: for threads and scripts.

    It keeps no cookies: one session may serve all callers, and the session cookie of one would be sent with the calls
    of the next. Proxies and passwords of the environment are not used.

    Args:
        destinations: who may receive something: one `Destination`, or several.
        exchange: the token service; needed for the modes that ask for tokens.
        strict: refuse requests that hold what came in from the caller, instead of taking it off.

    Raises:
        ConfigurationError: a mode needs a token service and there is none.
    """

    def __init__(
        self,
        destinations: Destinations | Destination | Iterable[Destination],
        exchange: TokenExchange | None = None,
        *,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self._carrier = Carrier(destinations, exchange, strict=strict)
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request, or one hop of a redirect.

        Raises:
            OutboundError: it left the origin of a destination, and has a body that was meant for it.
        """
        refuse_body(has_body=getattr(request, _BODY, False))
        url = request.url or ""
        destination = None if getattr(request, _REDIRECTED, False) else self._destination(url)
        # A copy, so that what is added here stays out of the requests that a redirect makes of this one.
        sent = request.copy()
        for name in self._carrier.mistakes(destination, url.encode(), headers_as_bytes(sent.headers)):
            sent.headers.pop(name, None)
        cargo = None
        if destination is not None and destination.mode != "none":
            cargo = self._carrier.cargo(destination)
            sent.headers.pop(cargo.header, None)
            sent.headers[cargo.header] = self._carrier.obtain_blocking(cargo)
        follow = kwargs.pop("allow_redirects", True)
        response = super().send(sent, **kwargs, allow_redirects=False)
        response.request = request
        if cargo is not None and response.status_code == 401:
            self._carrier.refused(cargo)
        if follow:
            hops = list(self.resolve_redirects(response, request, **kwargs))
            if hops:
                hops.insert(0, response)
                response = hops.pop()
                response.history = hops
        return response

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Take from a redirected request what may not go where it goes, whether it is followed or not."""
        super().rebuild_auth(prepared_request, response)
        before = response.request
        redirected, left = getattr(before, _REDIRECTED, False), getattr(before, _LEFT, False)
        if not redirected and _origin(before.url) != _origin(prepared_request.url):
            redirected, left = True, self._destination(before.url or "") is not None
        setattr(prepared_request, _REDIRECTED, redirected)
        setattr(prepared_request, _LEFT, left)
        if left:
            headers = prepared_request.headers
            has_body = bool(prepared_request.body)
            for name in {name.lower() for name in headers}:
                if has_body or name not in HARMLESS_HEADERS:
                    headers.pop(name, None)
            if has_body:
                prepared_request.body = None
                setattr(prepared_request, _BODY, True)

    def _destination(self, url: str) -> Destination | None:
        """Return where requests will connect: by its own two parsers and by httpx2's, which must agree."""
        found = self._carrier.destinations.find(url)
        if found is None:
            return None
        try:
            ours, theirs = urlsplit(url), parse_url(url)
            same = (ours.hostname or "").strip("[]") == (theirs.host or "").strip("[]") and ours.port == theirs.port
        except ValueError:
            return None
        if not same or ours.username is not None or theirs.auth is not None:
            return None
        host = f"[{ours.hostname}]" if ":" in (ours.hostname or "") else ours.hostname
        port = "" if ours.port is None else f":{ours.port}"
        return found if found.matches(f"{ours.scheme}://{host}{port}/") else None


def _origin(url: str | None) -> tuple[str, str]:
    parts = urlsplit(url or "")
    return parts.scheme.lower(), parts.netloc.lower()
