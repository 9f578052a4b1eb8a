"""Who ``request.user`` is when a token says who calls.

Without the setting ``USERS`` it is an `IdentityUser`, which is nobody of the database. With it, the token's subject is
looked up among the users of ``django.contrib.auth``, and made if the setting says so. Always it is the subject, on
whose authority the request runs, and never the actor; and always the token decides, not a session cookie that came
along. A token does not stand for staff or superusers unless the setting says so: they are of this project's own making,
and their names could be subjects elsewhere.
"""

import logging
from functools import partial
from typing import Any, Final, NoReturn
from urllib.parse import quote

from django.utils.functional import SimpleLazyObject

from tenantguard.identity import ActorType, Identity
from tenantguard_django.conf import UserSettings

__all__ = ["IdentityUser", "set_user"]

logger = logging.getLogger("tenantguard.users")
MAX_NAME: Final = 150


class IdentityUser:
    """The subject of a token that is mapped to no user: authenticated, without permissions, stored nowhere.

    ``pk`` is a text of issuer, tenant and subject, such as ``"https://login.example.com/|acme|alice"``: throttles and
    cache keys take it for what tells users apart, and who works for two tenants is two users to them. It is no key of
    the database.

    Args:
        identity: whom the request runs as.
    """

    is_staff = False
    is_active = True
    is_superuser = False
    is_anonymous = False
    is_authenticated = True

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    @property
    def pk(self) -> str:
        """The issuer, the tenant's id (percent-encoded, empty where there is none) and the subject's id."""
        identity = self.identity
        tenant = "" if identity.tenant is None else quote(identity.tenant.id, safe="")
        return f"{identity.issuer or ''}|{tenant}|{identity.subject.id}"

    id = pk

    @property
    def username(self) -> str:
        """The subject's id."""
        return self.identity.subject.id

    def get_username(self) -> str:
        """Return the subject's id."""
        return self.identity.subject.id

    def get_full_name(self) -> str:
        """Return the subject's id."""
        return self.identity.subject.id

    get_short_name = get_full_name

    def has_perm(self, perm: str, obj: object = None) -> bool:  # noqa: ARG002 - the signature of Django's users
        """False: a token's rights are its scopes."""
        return False

    def has_perms(self, perm_list: object, obj: object = None) -> bool:  # noqa: ARG002
        """False: a token's rights are its scopes."""
        return False

    def has_module_perms(self, app_label: str) -> bool:  # noqa: ARG002
        """False: a token's rights are its scopes."""
        return False

    def get_all_permissions(self, obj: object = None) -> set[str]:  # noqa: ARG002
        """Return none: a token's rights are its scopes."""
        return set()

    get_user_permissions = get_group_permissions = get_all_permissions

    @property
    def groups(self) -> Any:
        """No groups, which can be asked as any manager."""
        from django.contrib.auth.models import Group
        from django.db.models.manager import EmptyManager

        return EmptyManager(Group)

    @property
    def user_permissions(self) -> Any:
        """No permissions, which can be asked as any manager."""
        from django.contrib.auth.models import Permission
        from django.db.models.manager import EmptyManager

        return EmptyManager(Permission)

    async def ahas_perm(self, perm: str, obj: object = None) -> bool:
        """False, as `has_perm`; ``@permission_required`` asks for it on async views."""
        return self.has_perm(perm, obj)

    async def ahas_perms(self, perm_list: object, obj: object = None) -> bool:
        """False, as `has_perms`."""
        return self.has_perms(perm_list, obj)

    async def ahas_module_perms(self, app_label: str) -> bool:
        """False, as `has_module_perms`."""
        return self.has_module_perms(app_label)

    async def aget_all_permissions(self, obj: object = None) -> set[str]:
        """Return none, as `get_all_permissions`."""
        return self.get_all_permissions(obj)

    aget_user_permissions = aget_group_permissions = aget_all_permissions

    def save(self) -> NoReturn:
        """Refuse: there is nothing to save."""
        raise NotImplementedError("The subject of a token is no user of the database. See TENANTGUARD['USERS'].")

    delete = save

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityUser) and other.pk == self.pk

    def __hash__(self) -> int:
        return hash(self.pk)

    def __str__(self) -> str:
        return self.identity.subject.id


def set_user(request: Any, identity: Identity, settings: UserSettings | None) -> None:
    """Let ``request.user`` and ``request.auser`` be the subject of a token.

    Args:
        request: the request.
        identity: whom it runs as.
        settings: how subjects are mapped to users; ``None`` for not at all.
    """
    if settings is None:
        request.user = user = IdentityUser(identity)
        request.auser = partial(_same, user)
        return
    found: list[Any] = []

    def look_up() -> Any:
        if not found:
            found.append(_user_of(identity, settings))
        return found[0]

    async def look_up_async() -> Any:
        if not found:
            found.append(await _user_of_async(identity, settings))
        return found[0]

    request.user = SimpleLazyObject(look_up)
    request.auser = look_up_async


async def _same(user: IdentityUser) -> IdentityUser:
    return user


def _name_of(identity: Identity, settings: UserSettings) -> str | None:
    if settings.username is not None:
        name = settings.username(identity)
    elif identity.subject.type is ActorType.HUMAN and identity.issuer is not None:
        name = identity.subject.id
    else:
        name = None  # services have no account, and a credential without issuer has no unique subject
    if name is not None and (not isinstance(name, str) or not 0 < len(name) <= MAX_NAME):
        logger.warning("A subject's name is no text of 1 to %d characters; it has no user.", MAX_NAME)
        return None
    return name


def _fit(user: Any, name: str | None, settings: UserSettings) -> Any:
    from django.contrib.auth.models import AnonymousUser

    # Some collations find "alice" where "ALICE" is asked for, which may be another subject.
    if user is None or not user.is_active or user.get_username() != name:
        return AnonymousUser()
    if not settings.staff and (getattr(user, "is_staff", False) or getattr(user, "is_superuser", False)):
        logger.warning("A token's subject has the name of a staff user, for whom tokens do not stand here.")
        return AnonymousUser()
    return user


def _query(name: str) -> tuple[Any, dict[str, str], dict[str, str]]:
    """Return the manager of users, what finds one by its name, and what a new one has besides."""
    from django.contrib.auth import get_user_model
    from django.contrib.auth.hashers import make_password

    model: Any = get_user_model()
    users = model._default_manager
    return users, {model.USERNAME_FIELD: name}, {"password": make_password(None)}


def _user_of(identity: Identity, settings: UserSettings) -> Any:
    name, user = _name_of(identity, settings), None
    if name is not None:
        users, by_name, others = _query(name)
        if settings.create:
            user, _ = users.get_or_create(**by_name, defaults=others)
        else:
            user = users.filter(**by_name).first()
    return _fit(user, name, settings)


async def _user_of_async(identity: Identity, settings: UserSettings) -> Any:
    name, user = _name_of(identity, settings), None
    if name is not None:
        users, by_name, others = _query(name)
        if settings.create:
            user, _ = await users.aget_or_create(**by_name, defaults=others)
        else:
            user = await users.filter(**by_name).afirst()
    return _fit(user, name, settings)
