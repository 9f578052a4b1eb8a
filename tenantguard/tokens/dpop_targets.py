"""The URI that a DPoP proof is for, in the one form in which two spellings of it are equal (RFC 9449, section 4.3).

Query and fragment don't count. What is left is normalised by syntax and by scheme (RFC 3986, sections 6.2.2 and
6.2.3): case of scheme and host, the scheme's own port, encodings of characters that need none, dot segments, the empty
path. Everything else counts, character by character: an encoded slash stays another thing than a slash, since apps may
route it elsewhere. A WebSocket's handshake is a GET of http or https (RFC 6455, section 4.1), and so ``wss`` is
``https`` here.
"""

import re
from typing import Final

__all__ = ["normalize_origin", "normalize_target", "target_at"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_ORIGIN: Final = r"(https?|wss?)://([a-z0-9._~!$&'()*+,;=-]+|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?"
# Without the flag for ASCII, a few characters of other alphabets would count as letters in another case.
_FLAGS: Final = re.IGNORECASE | re.ASCII
_WHOLE_ORIGIN: Final = re.compile(_ORIGIN + "/?", _FLAGS)
# Browsers send a few characters in a path as they are that RFC 3986 would have encoded, so any visible character may
# stand there; control characters, spaces and what is not ASCII may not.
_TARGET: Final = re.compile(_ORIGIN + r"(/[\x21-\x22\x24-\x3e\x40-\x7e]*)?(?:\?[^#]*)?(?:#.*)?", _FLAGS)
_ENCODED: Final = re.compile(r"%(.{0,2})")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{2}")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def normalize_target(uri: str) -> str:
    """Return the normal form of an absolute http URI, without query and fragment.

    Raises:
        ValueError: it is none.
    """
    match = _TARGET.fullmatch(uri)
    if match is None:
        raise ValueError("The text is no absolute http URI.")
    return _origin(match) + _path(match[4] or "/")


def normalize_origin(uri: str) -> str:
    """Return the normal form of ``scheme://host[:port]``.

    Raises:
        ValueError: it is something else, or something more.
    """
    match = _WHOLE_ORIGIN.fullmatch(uri)
    if match is None:
        raise ValueError("The text is no origin.")
    return _origin(match)


def target_at(origin: str, uri: str) -> str:
    """Return the normal form that a request's URI has at another origin, the public one of an app behind a proxy.

    Args:
        origin: what `normalize_origin` returned.
        uri: the request's own URI.

    Raises:
        ValueError: it is no absolute http URI.
    """
    match = _TARGET.fullmatch(uri)
    if match is None:
        raise ValueError("The text is no absolute http URI.")
    return origin + _path(match[4] or "/")


def _origin(match: re.Match[str]) -> str:
    scheme = _SCHEMES[match[1].lower()]
    host = match[2].lower()
    port = int(match[3]) if match[3] else _DEFAULT_PORTS[scheme]
    if not 0 < port < 65536:
        raise ValueError("The URI has a port that can't exist.")
    return f"{scheme}://{host}" if port == _DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{port}"


def _path(path: str) -> str:
    if "%" in path:
        path = _ENCODED.sub(_decode_unreserved, path)
    return _without_dot_segments(path) if "/." in path else path


def _decode_unreserved(match: re.Match[str]) -> str:
    if not _HEX.fullmatch(match[1]):
        raise ValueError("The URI has a percent sign that encodes nothing.")
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _without_dot_segments(path: str) -> str:
    """Remove dot segments (RFC 3986, section 5.2.4) of a path that begins with a slash."""
    segments = path.split("/")[1:]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
