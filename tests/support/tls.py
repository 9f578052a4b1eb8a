"""Servers with TLS on loopback, whose certificates are of a certificate authority that is made for the test."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Awaitable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import hypercorn.config
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.types import ASGIApp

from tests.support.server import loopback_socket, running_hypercorn

__all__ = ["Authority", "serve_tls"]


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with one certificate for this machine.

    Args:
        ca_file: what a client must trust.
        certificate_file: the server's.
        key_file: the server's.
    """

    ca_file: Path
    certificate_file: Path
    key_file: Path

    @property
    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        """Make one, with its files in ``folder``."""
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Authority of a test")])
        now = dt.datetime.now(dt.UTC)
        ca = (
            x509.CertificateBuilder(ca_name, ca_name, ca_key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=5))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, SHA256())
        )
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        own = (
            x509.CertificateBuilder(
                ca_name,
                x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]),
                key.public_key(),
                x509.random_serial_number(),
            )
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=5))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, SHA256())
        )
        made = cls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
        made.ca_file.write_bytes(ca.public_bytes(Encoding.PEM))
        made.certificate_file.write_bytes(own.public_bytes(Encoding.PEM))
        made.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return made


@contextmanager
def serve_tls(app: ASGIApp, authority: Authority) -> Iterator[str]:
    """Serve ``app`` by Hypercorn over TLS, with HTTP/2 for clients that speak it, and yield its base URL."""
    with closing(loopback_socket()) as free:
        port = free.getsockname()[1]
    settings = hypercorn.config.Config()
    settings.bind = [f"127.0.0.1:{port}"]
    settings.certfile, settings.keyfile = str(authority.certificate_file), str(authority.key_file)
    settings.alpn_protocols = ["h2", "http/1.1"]
    settings.graceful_timeout = 1
    settings.errorlog = None  # handshakes that a client breaks off are part of the tests

    def serve(trigger: Any) -> Awaitable[None]:
        return hypercorn.asyncio.serve(app, settings, shutdown_trigger=trigger)  # type: ignore[arg-type]

    with running_hypercorn(port, serve, asyncio):
        yield f"https://127.0.0.1:{port}"
