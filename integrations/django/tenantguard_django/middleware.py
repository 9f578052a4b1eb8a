"""The door of a Django project: one middleware class for ASGI and WSGI.

Each request goes through the core's own ASGI middleware, so that there is one set of decisions: on an event loop the
rest of Django's chain runs as its app; in a WSGI worker it only says what is to be bound. A token that was verified
before awaits nothing there, so it needs no event loop in a WSGI worker, and no thread under ASGI.

The identity is bound for the inner middleware, the view (and its transaction, with ``ATOMIC_REQUESTS``), and the parts
of a streaming response, and for nothing else.
"""

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, cast, final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.cache import patch_vary_headers
from starlette.types import Receive, Scope, Send

from tenantguard.binding import Binding, enter_binding, leave_binding, raw_binding
from tenantguard.errors import TenantGuardError
from tenantguard.identity import Identity
from tenantguard.middleware import TenantGuardMiddleware as Door
from tenantguard.rules import AUTHORIZATION
from tenantguard.tenancy import settle_tenant
from tenantguard.tokens import Verified
from tenantguard_django.bridge import check_threads, run_blocking
from tenantguard_django.conf import get_settings
from tenantguard_django.exchange import Exchange, drop_mixed_names, mixes_names, scope_of
from tenantguard_django.refusals import Answers, noted_refusal
from tenantguard_django.sessions import SessionIdentities
from tenantguard_django.streams import bind_stream
from tenantguard_django.users import set_user

__all__ = ["TenantGuardMiddleware"]

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
ADMITTED = "tenantguard"
"""Where the core's middleware leaves the identity in an ASGI scope, if it stands outside of the whole Django app."""
TESTED = "tenantguard.identity"
"""Where the test client puts an identity. What comes over a network is text, and never an `Identity`."""


@final
class TenantGuardMiddleware:
    """Binds the identity of each request's token, and refuses requests without one.

    Put it after ``AuthenticationMiddleware``, where there is one. Views read ``request.identity`` and
    ``request.tenant``, which are ``None`` on public paths. ``request.user`` is the token's subject.

    Args:
        get_response: the rest of the chain.

    Raises:
        ImproperlyConfigured: the setting ``TENANTGUARD`` is not usable.
        ConfigurationError: a WSGI worker has greenlets in the place of threads.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        settings = get_settings()
        guard = settings.guard
        self._users = settings.users
        self._guard = guard
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(cast(Any, self))
        else:
            check_threads()
        app = self._serve_inside if self._is_async else self._note
        self._door = Door(app, guard)
        self._answers = Answers(guard)
        self._mixes_names = mixes_names()
        self._nonces = guard.rules.dpop is not None
        self._cached = guard.verifier.cached
        self._watched = guard.rules.watched
        self._always_asked = guard.rules.always_asked
        self._public = guard.rules.public.cover
        self._sessions = None if settings.sessions is None else SessionIdentities(settings.sessions, guard)
        self._session_paths = None if settings.sessions is None else settings.sessions.paths
        if self._sessions is not None:
            # Only here, because Django asks each such hook in a thread unless it is of the chain's own kind.
            self.process_view = self._protect_session if self._is_async else self._protect_session_sync

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        if self._mixes_names and hasattr(request, "scope"):
            drop_mixed_names(request, request.scope)
        if self._is_async:
            return self._serve(request)
        return self._serve_sync(request)

    # --- on an event loop ------------------------------------------------------------------------------------

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        scope = scope_of(request)
        exchange = Exchange(request, scope)
        try:
            given = self._given(request, scope)
        except TenantGuardError as error:
            return self._refused(request, error)
        if given is not None:
            exchange.binding = given
            await self._serve_bound(exchange, token=True)
            return exchange.answer()
        if self._counts_session(scope):
            return await self._serve_session(exchange)
        await self._door(scope, exchange, exchange.send)
        return exchange.answer()

    async def _serve_inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that was let in: the app of the door."""
        exchange = cast(Exchange, receive)
        exchange.enter(scope, raw_binding() if ADMITTED in scope else None)
        await self._serve_bound(exchange, token=True)
        if self._nonces:
            await send({"type": "http.response.start", "status": 200, "headers": []})

    async def _serve_bound(self, exchange: Exchange, *, token: bool) -> None:
        exchange.inside = True
        request, binding = exchange.request, exchange.binding
        self._show(request, binding, token=token)
        get_response = cast(Callable[[HttpRequest], Coroutine[Any, Any, HttpResponseBase]], self.get_response)
        if binding is not None and binding is raw_binding():  # the door has bound it
            response = await get_response(request)
        else:
            bound = enter_binding(binding)
            try:
                response = await get_response(request)
            finally:
                leave_binding(bound)
        exchange.response = self._finished(request, response, binding, token=token)

    async def _serve_session(self, exchange: Exchange) -> HttpResponseBase:
        request = exchange.request
        try:
            assert self._sessions is not None
            identity = await self._sessions.aof(request)
        except TenantGuardError as error:
            return self._refused(request, error)
        exchange.enter(self._stripped(exchange.scope), None if identity is None else Binding(identity))
        await self._serve_bound(exchange, token=False)
        return exchange.answer()

    # --- in a worker thread ----------------------------------------------------------------------------------

    def _serve_sync(self, request: HttpRequest) -> HttpResponseBase:
        scope = scope_of(request)
        exchange = Exchange(request, scope)
        token = True
        try:
            given = self._given(request, scope)
        except TenantGuardError as error:
            return self._refused(request, error)
        if given is not None:
            exchange.inside, exchange.binding = True, given
        elif self._counts_session(scope):
            try:
                assert self._sessions is not None
                identity = self._sessions.of(request)
            except TenantGuardError as error:
                return self._refused(request, error)
            exchange.enter(self._stripped(scope), None if identity is None else Binding(identity))
            token = False
        else:
            self._ask(exchange)
        if not exchange.inside:
            return exchange.answer()
        binding = exchange.binding
        self._show(request, binding, token=token)
        bound = enter_binding(binding)
        try:
            response = cast(HttpResponseBase, self.get_response(request))
        finally:
            leave_binding(bound)
        exchange.response = self._finished(request, response, binding, token=token)
        return exchange.answer()

    def _ask(self, exchange: Exchange) -> None:
        """Ask the door, here and now if it will not wait for anything, else on the event loop of the process."""
        scope = exchange.scope
        if self._is_quick(scope):
            passing = self._door(scope, exchange, exchange.send)
            try:
                passing.send(None)
            except StopIteration:
                return
            passing.close()  # the token was forgotten in this very moment
            exchange.messages.clear()
        run_blocking(lambda: self._door(scope, exchange, exchange.send))

    def _is_quick(self, scope: dict[str, Any]) -> bool:
        if self._public(scope):
            return True
        authorization: bytes | None = None
        for name, value in scope["headers"]:
            if name == AUTHORIZATION:
                authorization = value
            elif name in self._watched:
                return False
        if authorization is None:
            return True
        if self._always_asked or authorization[:7].lower() != b"bearer ":
            return False
        return self._cached(authorization[7:].decode("latin-1")) is not None

    async def _note(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note what is to be bound: the app of the door, in a worker thread."""
        exchange = cast(Exchange, receive)
        exchange.enter(scope, raw_binding() if ADMITTED in scope else None)
        if self._nonces:
            await send({"type": "http.response.start", "status": 200, "headers": []})

    # --- both ------------------------------------------------------------------------------------------------

    def _given(self, request: HttpRequest, scope: dict[str, Any]) -> Binding | None:
        """Return what was bound outside of Django already: by the core's middleware, or by the test client.

        Raises:
            TenantRefused: it belongs to no tenant, and the path needs one.
        """
        environ: Any = getattr(request, "scope", request.META)
        identity = environ.get(TESTED) or environ.get(ADMITTED)
        if not isinstance(identity, Identity) or self._public(scope):
            return None
        settle_tenant(Verified(identity), None, tenantless=self._guard.rules.tenantless.cover(scope))
        outer = raw_binding()
        return outer if outer is not None and outer.identity is identity else Binding(identity)

    def _counts_session(self, scope: dict[str, Any]) -> bool:
        """True where a session is the credential: on its paths, unless they are public or a token is shown."""
        paths = self._session_paths
        return paths is not None and paths(scope) and not _shows_token(scope) and not self._public(scope)

    def _show(self, request: Any, binding: Binding | None, *, token: bool) -> None:
        identity = None if binding is None else binding.identity
        request.identity = identity
        request.tenant = None if identity is None else identity.tenant
        if token and identity is not None:
            # A token comes in a header, which no other site can make a browser send.
            request._dont_enforce_csrf_checks = True  # noqa: SLF001 - as Django REST framework and Django's test client say it
            set_user(request, identity, self._users)

    def _finished(
        self, request: HttpRequest, response: HttpResponseBase, binding: Binding | None, *, token: bool
    ) -> HttpResponseBase:
        if binding is None:
            return response
        if response.streaming:
            identity = binding.identity
            credential = binding.credential
            recheck: Callable[[], Awaitable[None]] = _nothing
            if identity is not None and credential is not None:
                admission = self._door._admission  # noqa: SLF001 - of the same guard, whatever that is made of
                recheck = partial(admission.recheck, identity, credential.reveal())
            bind_stream(
                cast(StreamingHttpResponse, response), binding, revocations=self._guard.revocations, recheck=recheck
            )
        if token:
            if "Vary" in response.headers:
                patch_vary_headers(response, ("Authorization",))
            else:
                response.headers["Vary"] = "Authorization"
        noted = noted_refusal(request) if response.status_code == 403 else None
        if noted is not None and "WWW-Authenticate" not in response.headers:
            response.headers["WWW-Authenticate"] = self._answers.challenge(request, noted)
        return response

    def _stripped(self, scope: dict[str, Any]) -> dict[str, Any]:
        """Return a scope without the headers that no token vouches for."""
        rules = self._guard.rules
        away = self._watched - {AUTHORIZATION}
        if (
            rules.certificates is not None
            and rules.certificates.header is not None
            and rules.certificates.trusts(scope)
        ):
            away -= {rules.certificates.header}
        if any(name in away for name, _ in scope["headers"]):
            return {**scope, "headers": [header for header in scope["headers"] if header[0] not in away]}
        return scope

    def _refused(self, request: HttpRequest, error: TenantGuardError) -> HttpResponse:
        response = self._answers.to(request, error)
        if response is None:
            raise error
        return response

    # --- sessions: the views that are exempt from Django's check of cross-site requests ---------------------------

    def _protect_session_sync(self, request: Any, view: Any, *_: Any) -> HttpResponseBase | None:
        """Check a request whose rights come from a cookie, also where its view is exempt from Django's own check."""
        if _is_unchecked(request, view):
            return _csrf_refusal(request)
        return None

    async def _protect_session(self, request: Any, view: Any, *_: Any) -> HttpResponseBase | None:
        if _is_unchecked(request, view):
            return await sync_to_async(_csrf_refusal)(request)
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer a refusal that a view raised. Everything else is Django's to handle."""
        return self._answers.to(request, exception)


async def _nothing() -> None:
    """Recheck nothing: the identity came with no token."""


def _is_unchecked(request: Any, view: Any) -> bool:
    return (
        request.identity is not None
        and request.method not in ("GET", "HEAD", "OPTIONS", "TRACE")
        and getattr(view, "csrf_exempt", False)
        and not getattr(request, "_dont_enforce_csrf_checks", False)
    )


def _csrf_refusal(request: HttpRequest) -> HttpResponseBase | None:
    check = CsrfViewMiddleware(cast(Any, _nothing))
    check.process_request(request)
    return check.process_view(request, cast(Any, None), (), {})


def _shows_token(scope: dict[str, Any]) -> bool:
    return any(name == AUTHORIZATION for name, _ in scope["headers"])
