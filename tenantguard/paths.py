"""Which paths are public, that is, served without a credential. Everything else is protected.

The path that counts is the one that Starlette's router sees: decoded, without the mount's ``root_path``. Spellings
that another layer may read as another path (empty and dot segments, backslashes, encoded slashes, encodings in
encodings; RFC 3986, sections 3.3 and 6.2.2) are never public, whatever they begin with. So no spelling of a protected
path is public, and the worst that a strange spelling of a public one can meet is a 401.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, final

from tenantguard.errors import ConfigurationError

__all__ = ["PublicPaths", "path_of"]

_AMBIGUOUS: Final = re.compile(r"//|/\.{1,2}(?=[/;]|\Z)|[\\%\x00-\x1f\x7f]")
_AMBIGUOUS_ENCODED: Final = re.compile(rb"%(?:2[ef5]|5c|00|3b)", re.IGNORECASE)
_PATTERN: Final = re.compile(r"/(?:[^\s*?#%\\\x00-\x1f\x7f]*[^\s*?#%\\/\x00-\x1f\x7f])?(?:/\*|/)?")
_EXAMPLE: Final = 'For example public=["/health", "/static/*"].'


def path_of(scope: Mapping[str, Any]) -> str:
    """Return the path that the router sees: decoded, without the mount's ``root_path``."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path


@final
class PublicPaths:
    """The declared public paths.

    Args:
        patterns: exact paths (``"/health"``; ``"/health/"`` is another path) and prefixes that end in ``/*``
            (``"/static/*"`` covers ``/static/`` and all below, not ``/static`` itself and not ``/statics``).

    Raises:
        ConfigurationError: a pattern is not of one of these forms, or would make the whole app public.
    """

    __slots__ = ("_exact", "_prefixes", "patterns")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        if isinstance(patterns, str):
            raise ConfigurationError("public is a single text, not a list of paths.", mend=_EXAMPLE)
        self.patterns: Final = tuple(_checked(pattern) for pattern in patterns)
        self._exact = frozenset(pattern for pattern in self.patterns if not pattern.endswith("/*"))
        self._prefixes = tuple(pattern[:-1] for pattern in self.patterns if pattern.endswith("/*"))

    def cover(self, scope: Mapping[str, Any]) -> bool:
        """True if the request of an ASGI scope needs no credential."""
        path: str = scope["path"]
        if scope.get("root_path"):
            path = path_of(scope)
        if path not in self._exact and not (
            self._prefixes and path.startswith(self._prefixes) and not _AMBIGUOUS.search(path)
        ):
            return False
        raw = scope.get("raw_path")
        return not raw or b"%" not in raw or not _AMBIGUOUS_ENCODED.search(raw)

    def __repr__(self) -> str:
        return f"PublicPaths({list(self.patterns)!r})"


def _checked(pattern: object) -> str:
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern) or _AMBIGUOUS.search(pattern):
        raise ConfigurationError(f"The public path {pattern!r} is not a plain path.", mend=_EXAMPLE)
    if pattern == "/*":
        raise ConfigurationError("The public path '/*' would make the whole app public.", mend=_EXAMPLE)
    return pattern
