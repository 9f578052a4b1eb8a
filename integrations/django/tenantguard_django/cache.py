"""Keys for Django's caches that hold the tenant: ``"KEY_FUNCTION": "tenantguard_django.cache.make_key"``.

A cache answers without a statement, so no predicate reaches it. With this function a value belongs to who was bound
when it was set: the tenant, what the identity is narrowed to, and which further tenants it reads. A system context has
values of its own, so that what is read across tenants never answers for one. Without anybody bound it is refused.

Whole pages (``cache_page``, Django's cache middleware) are kept apart in every cache: `keep_pages_apart`.
"""

import hashlib
from typing import Any, Final

from django.utils import cache as pages

from tenantguard.binding import current_binding
from tenantguard.errors import NotBound
from tenantguard.identity import Identity
from tenantguard.orm.pins import pin_of

__all__ = ["keep_pages_apart", "make_key"]

_SUFFIX: Final = "_i18n_cache_key_suffix"
"""Django's function that ends the keys of pages with what is not in their URL: the language, the time zone."""


def make_key(key: object, key_prefix: str, version: int) -> str:
    """Return the key under which a value is kept.

    Args:
        key: the app's.
        key_prefix: the cache's ``KEY_PREFIX``.
        version: the cache's version.

    Raises:
        NotBound: no tenant is bound, and no system context.
    """
    binding = current_binding()
    if binding is not None and binding.system is not None:
        whose = "system"
    else:
        identity = binding.identity if binding is not None else None
        if identity is None or identity.tenant is None:
            raise NotBound(
                "A cache whose keys hold the tenant was used with no tenant bound.",
                mend="Bind an identity first. For what belongs to no tenant (sessions, templates), have a second cache "
                "in CACHES without this KEY_FUNCTION.",
            )
        tenant = identity.tenant.id
        whose = f"t{len(tenant)}:{tenant}"
        pin = pin_of(binding)
        if isinstance(pin, tuple):  # narrowed, or reading further tenants
            reach = repr((sorted(pin[1]), sorted(pin[2])))
            whose += f":{hashlib.sha256(reach.encode()).hexdigest()[:32]}"
    return f"{key_prefix}:{version}:{whose}:{key}"


def keep_pages_apart() -> None:
    """Have the tenant in the keys of cached pages, once for the process.

    A page is found by its URL and what it varies by, and ``cache_page`` on a view is done before the middleware could
    say that it varies by who asks.
    """
    original: Any = getattr(pages, _SUFFIX)
    if getattr(original, "tenantguard", False):
        return

    def suffix(request: Any, cache_key: str) -> str:
        key: str = original(request, cache_key)
        binding = current_binding()
        identity = getattr(request, "identity", None)
        if not isinstance(identity, Identity):
            identity = None if binding is None else binding.identity
        if identity is None or identity.tenant is None:
            return key
        whose = repr((identity.tenant.id, sorted(identity.dimensions)))
        return f"{key}.{hashlib.sha256(whose.encode()).hexdigest()[:32]}"

    suffix.tenantguard = True  # type: ignore[attr-defined]
    setattr(pages, _SUFFIX, suffix)
