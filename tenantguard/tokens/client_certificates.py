"""Which certificate the client showed, for tokens that are bound to one (RFC 8705).

A server that ends TLS itself says it in the ASGI ``tls`` extension. Behind a proxy it comes in a header, which anybody
could send; so it counts only from addresses that the app declares, and is taken away from every other request. Only the
thumbprint matters: whether the certificate is good was decided by whoever ended TLS, whom the app trusts with that.
"""

import hmac
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Any, Final, Literal, final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tenantguard.errors import ConfigurationError, InvalidRequest, InvalidToken
from tenantguard.identity import Identity

__all__ = ["ClientCertificates"]

MAX_HEADER_LENGTH: Final = 16 * 1024
_FORMS: Final = ("rfc9440", "escaped_pem")


@final
class ClientCertificates:
    """Where the client's certificate is, and which proxies are believed about it.

    Args:
        header: the header in which a proxy gives the certificate; ``None`` where the server ends TLS itself.
        form: ``"rfc9440"`` for the ``Client-Cert`` header field, or ``"escaped_pem"`` for URL-encoded PEM (nginx
            ``$ssl_client_escaped_cert``, AWS ``X-Amzn-Mtls-Clientcert-Leaf``).
        trusted: addresses and networks of the proxies. It must be the address of the connection itself, so servers
            that put the client's address from ``X-Forwarded-For`` in its place must not be set up to do so.

    Raises:
        ConfigurationError: a header without trusted proxies, or an argument that is not usable.

    Source: RFC 8705, section 3; RFC 9440, section 2.
    """

    __slots__ = ("_form", "_networks", "header")

    def __init__(
        self,
        *,
        header: str | None = "client-cert",
        form: Literal["rfc9440", "escaped_pem"] = "rfc9440",
        trusted: Iterable[str] = (),
    ) -> None:
        if form not in _FORMS:
            raise ConfigurationError(f"The form is none of {', '.join(_FORMS)}.", mend='For example form="rfc9440".')
        if header is not None and (not isinstance(header, str) or not header.isascii() or not header.strip()):
            raise ConfigurationError("header is no header's name.", mend='For example header="client-cert".')
        try:
            self._networks = tuple(ip_network(one) for one in ([] if isinstance(trusted, str) else trusted))
        except ValueError:
            raise ConfigurationError(
                "trusted holds something else than addresses and networks.", mend='For example trusted=["10.0.0.0/8"].'
            ) from None
        if header is not None and not self._networks:
            raise ConfigurationError(
                "A header with certificates is believed from nobody unless trusted proxies are declared.",
                mend='For example ClientCertificates(trusted=["10.1.2.3"]), or header=None if the server ends TLS.',
            )
        self.header = None if header is None else header.lower().encode()
        self._form = form

    def trusts(self, scope: Mapping[str, Any]) -> bool:
        """True if the connection of an ASGI scope comes from a trusted proxy."""
        client = scope.get("client")
        if not client:
            return False
        try:
            address = ip_address(client[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)

    def thumbprint(self, scope: Mapping[str, Any], values: Sequence[bytes]) -> str | None:
        """Return the SHA-256 thumbprint of the client's certificate in base64url, or ``None`` if none was shown.

        Args:
            scope: the ASGI scope.
            values: the values of the header; ignored unless a trusted proxy sent them.

        Raises:
            InvalidRequest: a trusted proxy sent several certificates, or something else.
        """
        chain = ((scope.get("extensions") or {}).get("tls") or {}).get("client_cert_chain")
        try:
            if chain:
                return _thumbprint(_der_of_pem(chain[0].encode()))
            if not values or not self.trusts(scope):
                return None
            if len(values) != 1 or len(values[0]) > MAX_HEADER_LENGTH:
                raise ValueError
            return _thumbprint(self._der(values[0].strip()))
        except (ValueError, Base64Error):
            raise InvalidRequest("The client's certificate is malformed.", mend="Check the proxy's settings.") from None

    def _der(self, value: bytes) -> bytes:
        if self._form == "escaped_pem":
            return _der_of_pem(unquote_to_bytes(value))
        if len(value) < 3 or value[:1] != b":" or value[-1:] != b":":
            raise ValueError
        der = b64decode(value[1:-1], validate=True)
        x509.load_der_x509_certificate(der)
        return der

    def check(self, identity: Identity, thumbprint: str | None) -> None:
        """Refuse a token that is bound to another certificate than the client's.

        Raises:
            InvalidToken: no certificate was shown, or another one.
        """
        bound = None if identity.confirmation is None else identity.confirmation.x5t_s256
        if bound is None:
            return
        if thumbprint is None or not hmac.compare_digest(bound.encode(), thumbprint.encode()):
            raise InvalidToken(
                "The token is bound to a certificate that the client did not show.",
                reason="certificate",
                mend="Connect with the certificate that the token was issued for.",
            )

    def __repr__(self) -> str:
        return f"ClientCertificates(header={self.header!r}, form={self._form!r})"


def _der_of_pem(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def _thumbprint(der: bytes) -> str:
    return urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode()
