"""``make docs``: write the reference pages from the docstrings, so that there is one text and it is where the code is.

Each page is a list of public names. A public name that stands on no page, and a page that is not what the docstrings
say, fail the tests.
"""

import enum
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "reference"

PAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "guard.md": (
        "The guard and the door",
        "What an app configures, the middleware, and what demands scopes.",
        (
            "tenantguard:TenantGuard",
            "tenantguard:TenantGuardMiddleware",
            "tenantguard:requires",
            "tenantguard:check_scopes",
            "tenantguard:check_authentication",
            "tenantguard:required_scopes",
            "tenantguard:ProtectedResource",
            "tenantguard.rules:RequestRules",
            "tenantguard.paths:PublicPaths",
            "tenantguard_fastapi:*",
        ),
    ),
    "identity.md": (
        "Identity and context",
        "Who acts, for whom, in which tenant, and how that is bound.",
        (
            "tenantguard:Identity",
            "tenantguard:Actor",
            "tenantguard:ActorType",
            "tenantguard:Tenant",
            "tenantguard:TenantStatus",
            "tenantguard.identity:AuthorizationDetail",
            "tenantguard.identity:Confirmation",
            "tenantguard.identity:Transaction",
            "tenantguard:service_identity",
            "tenantguard:bind",
            "tenantguard:system",
            "tenantguard:allow_raw",
            "tenantguard:read_tenants",
            "tenantguard:current_identity",
            "tenantguard:current_tenant",
            "tenantguard:current_actor",
            "tenantguard:Credential",
        ),
    ),
    "tenancy.md": (
        "Tenants",
        "Which tenants exist, and where a request may say which one it means.",
        (
            "tenantguard:TenantDirectory",
            "tenantguard:StaticTenants",
            "tenantguard:TenantFromHeader",
            "tenantguard:TenantFromHost",
            "tenantguard:TenantFromPath",
            "tenantguard.tenancy:TenantResolver",
        ),
    ),
    "tokens.md": (
        "Signed tokens",
        "Issuers, keys, claims, and the verifier that puts the steps in order.",
        (
            "tenantguard:Issuer",
            "tenantguard:TokenVerifier",
            "tenantguard.tokens:StaticKeys",
            "tenantguard.tokens:ClaimsProfile",
            "tenantguard.tokens:ClaimsMapping",
            "tenantguard.tokens:Verified",
            "tenantguard.tokens:ChainRules",
            "tenantguard:transaction_issuer",
            "tenantguard:oidc",
            "tenantguard:auth0",
            "tenantguard:clerk",
            "tenantguard:cognito",
            "tenantguard:entra",
            "tenantguard:google",
            "tenantguard:keycloak",
            "tenantguard:okta",
            "tenantguard:workos",
        ),
    ),
    "credentials.md": (
        "Other credentials",
        "API keys, opaque tokens, credentials of your own, and proof of possession.",
        (
            "tenantguard:ApiKeys",
            "tenantguard.tokens:ApiKey",
            "tenantguard.tokens:MintedKey",
            "tenantguard.tokens:ApiKeyStore",
            "tenantguard.tokens:InMemoryApiKeyStore",
            "tenantguard.tokens:SqlApiKeyStore",
            "tenantguard:Introspection",
            "tenantguard.tokens:CredentialVerifier",
            "tenantguard:DPoP",
            "tenantguard.tokens:DPoPNonces",
            "tenantguard.tokens:Possession",
            "tenantguard.tokens:ReplayStore",
            "tenantguard.tokens:InMemoryReplays",
            "tenantguard_redis:RedisReplays",
            "tenantguard:ClientCertificates",
        ),
    ),
    "revocation.md": (
        "Revocation",
        "What ends before its time, in every worker.",
        (
            "tenantguard:Revocations",
            "tenantguard:RevocationKind",
            "tenantguard.tokens:Revocation",
            "tenantguard.tokens:RevocationFeed",
            "tenantguard_redis:RedisRevocations",
            "tenantguard_redis:RedisConnections",
            "tenantguard:SecurityEventReceiver",
        ),
    ),
    "orm.md": (
        "Database",
        "The barrier for SQLAlchemy.",
        (
            "tenantguard.orm:*",
            "tenantguard.orm.review:*",
            "tenantguard.orm.rls:*",
            "tenantguard.orm.rls.alembic:*",
            "tenantguard.orm.citus:*",
        ),
    ),
    "placement.md": (
        "Placement",
        "Where each tenant's rows are, and how sessions, migrations and operations get there.",
        ("tenantguard.orm.placement:*",),
    ),
    "django-orm.md": (
        "Django's ORM",
        "The barrier in Django's ORM. How it is used is told in ../django-orm.md.",
        (
            *(
                f"tenantguard_django.orm:{name}"
                for name in (
                    "protect",
                    "is_protected",
                    "owned",
                    "owned_through",
                    "shared",
                    "wide",
                    "classify",
                    "vouch_for",
                )
            ),
            *(f"tenantguard_django.orm:{name}" for name in ("vouch_for", "read_across", "write_across", "move_rows")),
            *(f"tenantguard_django.orm:{name}" for name in ("check_models", "Problem", "unclassified_models")),
            "tenantguard_django.orm.rls:EnableRowLevelSecurity",
            "tenantguard_django.orm.rls:guard_transactions",
            "tenantguard_django.orm.rls:plan_of",
            "tenantguard_django.orm.rls:metadata_of",
            "tenantguard_django.cache:make_key",
        ),
    ),
    "outbound.md": (
        "Outbound calls",
        "Who may receive what, and the tokens that carry a caller on.",
        (
            "tenantguard.outbound:*",
            "tenantguard_httpx:*",
            "tenantguard_aiohttp:*",
            "tenantguard_requests:*",
        ),
    ),
    "jobs.md": (
        "Background work",
        "Jobs that run as whom they were put off for.",
        ("tenantguard.jobs:*", "tenantguard_celery:*", "tenantguard_taskiq:*"),
    ),
    "tracing.md": (
        "Tracing and logs",
        "Spans, baggage and log records that tell for whom, and never a token.",
        ("tenantguard.logs:*", "tenantguard_opentelemetry:*"),
    ),
    "django.md": (
        "Django",
        "The door, what views demand, the admin, frameworks and tests. How they are used is told in ../django.md.",
        (
            "tenantguard_django.middleware:TenantGuardMiddleware",
            "tenantguard_django:requires",
            "tenantguard_django.conf:get_guard",
            "tenantguard_django.sessions:choose_tenant",
            "tenantguard_django.sessions:tenants_to_choose",
            "tenantguard_django.users:IdentityUser",
            "tenantguard_django.admin.sites:TenantAdminSite",
            "tenantguard_django.admin.options:TenantModelAdmin",
            "tenantguard_django.admin.options:SharedModelAdmin",
            "tenantguard_django.rest_framework:*",
            "tenantguard_django.ninja:*",
            "tenantguard_django.test:*",
        ),
    ),
    "testing.md": ("Testing", "Weapons for your own tests.", ("tenantguard.testing:*",)),
    "errors.md": ("Errors", "One tree; each error knows its HTTP status.", ("tenantguard.errors:*",)),
}
PUBLIC = (
    "tenantguard",
    "tenantguard.errors",
    "tenantguard.jobs",
    "tenantguard.logs",
    "tenantguard.orm",
    "tenantguard.orm.citus",
    "tenantguard.orm.placement",
    "tenantguard.orm.review",
    "tenantguard.orm.rls",
    "tenantguard.orm.rls.alembic",
    "tenantguard.outbound",
    "tenantguard.testing",
    "tenantguard.tokens",
    "tenantguard_aiohttp",
    "tenantguard_celery",
    "tenantguard_django",
    "tenantguard_django.ninja",
    "tenantguard_django.orm",
    "tenantguard_django.rest_framework",
    "tenantguard_django.test",
    "tenantguard_fastapi",
    "tenantguard_httpx",
    "tenantguard_opentelemetry",
    "tenantguard_redis",
    "tenantguard_requests",
    "tenantguard_taskiq",
)
"""The modules whose ``__all__`` is public."""


def _set_up_django() -> None:
    """Let what belongs to Django be imported, which asks for settings."""
    import django
    from django.conf import settings

    if not settings.configured:
        admin = ["tenantguard_django.admin", "tenantguard_django.admin.apps.TenantAdmin"]
        contrib = [f"django.contrib.{name}" for name in ("contenttypes", "auth", "sessions", "messages")]
        settings.configure(INSTALLED_APPS=[*contrib, "rest_framework", "tenantguard_django", *admin])
        django.setup()


_set_up_django()


def public_names() -> dict[str, Any]:
    """Return the classes and functions that users may import, by their names."""
    return {
        name: thing
        for module in PUBLIC
        for name in importlib.import_module(module).__all__
        if inspect.isroutine(thing := getattr(importlib.import_module(module), name)) or inspect.isclass(thing)
    }


def _entries(names: tuple[str, ...]) -> list[tuple[str, str, Any]]:
    entries = []
    for written in names:
        module, _, name = written.partition(":")
        loaded = importlib.import_module(module)
        wanted = sorted(loaded.__all__) if name == "*" else [name]
        entries += [(module, each, getattr(loaded, each)) for each in wanted]
    return entries


def _signature(name: str, thing: Any) -> str:
    if getattr(thing, "_is_protocol", False):
        return f"class {name}(Protocol)"
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return name
    text = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "...", text)
    text = re.sub(r"<(?:function|class|built-in function) '?([\w.]+)'?>", lambda m: m[1].rpartition(".")[2], text)
    text = re.sub(r"\(self(?:, /)?(?:, |(?=\)))", "(", text)
    return name + re.sub(r"(?:[a-z_][A-Za-z_0-9]*\.)+([A-Za-z_])", r"\1", text)


def _prose(thing: Any) -> list[str]:
    """Return a docstring as Markdown: sections become lists."""
    lines: list[str] = []
    section = False
    for line in (inspect.getdoc(thing) or "").splitlines():
        heading = re.fullmatch(r"(Args|Raises|Returns|Attributes|Source): ?(.*)", line)
        item = re.fullmatch(r"    (\S[^:]*?): (.*)", line) if section else None
        if heading:
            section = not heading[2]
            lines += (
                [f"**{heading[1]}:** {heading[2]}".rstrip(), ""] if section else [f"**{heading[1]}:** {heading[2]}"]
            )
        elif item:
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif section and line.startswith("    "):
            lines.append("  " + line.strip())
        else:
            section = section and not line
            lines.append(line)
    return [line.replace("``", "`") for line in lines]


def _members(thing: Any) -> list[tuple[str, Any]]:
    if not inspect.isclass(thing) or issubclass(thing, enum.Enum):
        return []
    members = []
    for name, member in vars(thing).items():
        documented = inspect.isfunction(member) or isinstance(member, property | staticmethod | classmethod)
        if not name.startswith("_") and documented and inspect.getdoc(member):
            members.append((name, member))
    return members


def page(title: str, about: str, names: tuple[str, ...]) -> str:
    """Return one page."""
    lines = [f"# {title}", "", about, ""]
    for module, name, thing in _entries(names):
        lines += [f"## {name}", ""]
        if inspect.isclass(thing) or callable(thing):
            lines += ["```text", f"from {module} import {name}", _signature(name, thing), "```", ""]
        lines += [*_prose(thing), ""]
        if inspect.isclass(thing) and issubclass(thing, enum.Enum):
            lines += [*(f"- `{each.name}`: `{each.value!r}`" for each in thing), ""]
        for member_name, member in _members(thing):
            if isinstance(member, property):
                lines += [f"### {name}.{member_name}", "", *_prose(member), ""]
                continue
            function = member.__func__ if isinstance(member, staticmethod | classmethod) else member
            lines += [f"### {name}.{member_name}", "", "```text", _signature(member_name, function), "```", ""]
            lines += [*_prose(function), ""]
    text = "\n".join(lines)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def pages() -> dict[str, str]:
    """Return all pages, by their file's name."""
    return {file: page(*content) for file, content in PAGES.items()}


def covered() -> set[str]:
    """Return the names that stand on a page."""
    return {name for _, _, names in PAGES.values() for _, name, _ in _entries(names)}


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for file, text in pages().items():
        (HERE / file).write_text(text)
