"""Real keys, tokens of any shape, and a real issuer on loopback."""

import base64
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

__all__ = ["AUDIENCE", "ISSUER", "IssuerServer", "Lab", "SigningKey", "b64", "claims_of", "compact"]

ISSUER = "https://idp.example.com"
AUDIENCE = "https://api.example.com"
_ALGORITHMS = get_default_algorithms()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class SigningKey:
    """A private key with its id; signs tokens of any shape."""

    def __init__(self, private: Any, algorithm: str, kid: str | None) -> None:
        self.private = private
        self.algorithm = algorithm
        self.kid = kid

    @property
    def jwk(self) -> dict[str, Any]:
        public = self.private.public_key()
        for loader, kinds in (
            (RSAAlgorithm, rsa.RSAPublicKey),
            (ECAlgorithm, ec.EllipticCurvePublicKey),
            (OKPAlgorithm, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)),
        ):
            if isinstance(public, kinds):
                jwk = dict(loader.to_jwk(public, as_dict=True))
                jwk.pop("key_ops", None)
                return jwk | {"alg": self.algorithm, "use": "sig"} | ({"kid": self.kid} if self.kid else {})
        raise AssertionError

    def sign(self, signing_input: bytes, algorithm: str | None = None) -> bytes:
        return _ALGORITHMS[algorithm or self.algorithm].sign(signing_input, self.private)

    def raw_token(self, header: bytes, payload: bytes) -> str:
        signing_input = f"{b64(header)}.{b64(payload)}"
        return f"{signing_input}.{b64(self.sign(signing_input.encode()))}"

    def token(self, claims: dict[str, Any], **header: Any) -> str:
        whole = {"alg": self.algorithm, "typ": "at+jwt"} | ({"kid": self.kid} if self.kid else {}) | header
        whole = {name: value for name, value in whole.items() if value is not None}
        return self.raw_token(compact(whole), compact(claims))


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def claims_of(issuer: str = ISSUER, **changes: Any) -> dict[str, Any]:
    """Claims of a good access token; a change to ``None`` takes a claim out."""
    now = int(time.time())
    claims = {
        "iss": issuer,
        "sub": "user-1",
        "aud": AUDIENCE,
        "exp": now + 600,
        "iat": now,
        "jti": "token-1",
        "client_id": "web",
        "scope": "documents:read documents:write",
        "tenant_id": "acme",
        "sid": "session-1",
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


class Lab:
    """What tests build with: keys made once, claims, tokens."""

    issuer = ISSUER
    audience = AUDIENCE
    b64 = staticmethod(b64)
    compact = staticmethod(compact)
    claims = staticmethod(claims_of)
    SigningKey = SigningKey

    def __init__(self) -> None:
        self.rsa = SigningKey(rsa.generate_private_key(65537, 2048), "RS256", "rsa-1")
        self.other_rsa = SigningKey(rsa.generate_private_key(65537, 2048), "RS256", "rsa-2")
        self.ec = SigningKey(ec.generate_private_key(ec.SECP256R1()), "ES256", "ec-1")
        self.ec384 = SigningKey(ec.generate_private_key(ec.SECP384R1()), "ES384", "ec-384")
        self.ec521 = SigningKey(ec.generate_private_key(ec.SECP521R1()), "ES512", "ec-521")
        self.ed = SigningKey(ed25519.Ed25519PrivateKey.generate(), "EdDSA", "ed-1")
        self.ed448 = SigningKey(ed448.Ed448PrivateKey.generate(), "EdDSA", "ed-448")
        self._numbers = itertools.count(1)

    def new_key(self) -> SigningKey:
        """A fresh key; Ed25519, because it is quick to make."""
        return SigningKey(ed25519.Ed25519PrivateKey.generate(), "EdDSA", f"ed-{next(self._numbers)}-{time.time_ns()}")

    def jwks(self, *keys: SigningKey) -> dict[str, Any]:
        return {"keys": [key.jwk for key in keys]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "IssuerServer"

    def do_GET(self) -> None:
        with self.server.counting:
            self.server.requests[self.path] += 1
        answer = self.server.routes.get(self.path)
        if answer is None:
            self.reply(404, b"{}")
        else:
            answer(self)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class IssuerServer(ThreadingHTTPServer):
    """An issuer on loopback whose answers the test decides."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, Callable[[Any], None]] = {}
        self.requests: Counter[str] = Counter()
        self.counting = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.delay = 0.0
        self.failing = False
        self.metadata: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        self.keys: list[SigningKey] = []
        self.routes["/.well-known/openid-configuration"] = lambda handler: self.answer(handler, self.metadata)
        self.routes["/jwks"] = lambda handler: self.answer(handler, {"keys": [key.jwk for key in self.keys]})

    def answer(self, handler: _Handler, document: Any) -> None:
        if self.delay:
            time.sleep(self.delay)
        if self.failing:
            handler.reply(503, b"{}")
        else:
            handler.reply(200, compact(document), Content_Type="application/json")

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that give up are part of the tests
