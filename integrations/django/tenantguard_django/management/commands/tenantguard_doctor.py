"""``manage.py tenantguard_doctor``: examine the project and say what to mend. Nothing is changed.

It shows what ``manage.py check`` finds, and besides it what holds: whose the rows of each model are, and what each URL
demands. With ``--json`` for other programs. The exit code is 1 if there are errors.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import checks as django_checks
from django.core.management.base import BaseCommand, CommandParser
from django.urls import URLPattern, URLResolver, get_resolver

from tenantguard.errors import TenantGuardError
from tenantguard_django.checks import TAG
from tenantguard_django.conf import read_once
from tenantguard_django.demands import demands_of

__all__ = ["Command"]


class Command(BaseCommand):
    """Examines the project."""

    help = "Say whose the rows of each model are, what each URL demands, and what to mend."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own attribute; the findings are shown here

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--json", action="store_true", help="Print JSON.")
        parser.add_argument("--fail-level", choices=["ERROR", "WARNING"], default="ERROR", help="What exits with 1.")

    def handle(self, **options: Any) -> None:
        """Examine, and print."""
        findings = django_checks.run_checks(tags=[TAG])
        report = {
            "models": list(_models()),
            "urls": list(_urls(get_resolver().url_patterns, "/")) if getattr(settings, "ROOT_URLCONF", None) else [],
            "findings": [
                {
                    "id": one.id,
                    "level": _level(one),
                    "message": str(one.msg),
                    "hint": one.hint,
                    "object": _name(one.obj),
                }
                for one in findings
            ],
        }
        if options["json"]:
            self.stdout.write(json.dumps(report, indent=2))
        else:
            self._print(report)
        worst = django_checks.ERROR if options["fail_level"] == "ERROR" else django_checks.WARNING
        if any(one.level >= worst for one in findings):
            sys.exit(1)

    def _print(self, report: dict[str, Any]) -> None:
        self._table(
            ("MODEL", "CLASS", "WHOSE ROWS"), [(one["model"], one["class"], one["rows"]) for one in report["models"]]
        )
        self.stdout.write("")
        self._table(("URL", "DEMANDS"), [(one["url"], one["demands"]) for one in report["urls"]])
        for one in report["findings"]:
            self.stdout.write("")
            style = self.style.ERROR if one["level"] == "ERROR" else self.style.WARNING
            self.stdout.write(style(f"{one['id']} {one['object'] or ''}".rstrip()))
            self.stdout.write(f"  {one['message']}")
            if one["hint"]:
                self.stdout.write(f"  {one['hint']}")
        counts = {level: sum(one["level"] == level for one in report["findings"]) for level in ("ERROR", "WARNING")}
        self.stderr.write(
            f"Models: {len(report['models'])}. URLs: {len(report['urls'])}. "
            f"Errors: {counts['ERROR']}, warnings: {counts['WARNING']}."
        )

    def _table(self, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
        self.stdout.write(self.style.MIGRATE_HEADING(_line(header, widths)))
        for row in rows:
            self.stdout.write(_line(row, widths))


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _level(message: Any) -> str:
    return "ERROR" if message.level >= django_checks.ERROR else "WARNING"


def _name(thing: Any) -> str | None:
    meta = getattr(thing, "_meta", None)
    return None if thing is None else str(meta.label if meta is not None else thing)


def _models() -> Iterator[dict[str, str]]:
    from django.apps import apps

    from tenantguard_django.orm.classify import Child, Owned, kind_of_model

    for model in apps.get_models():
        try:
            kind = kind_of_model(model)
        except TenantGuardError as error:
            yield {"model": model._meta.label, "class": "unclassified", "rows": error.message}
            continue
        if isinstance(kind, Owned):
            described = ("owned", f"those of the tenant in {kind.key.column}")
        elif isinstance(kind, Child):
            described = ("child", f"through {kind.field.name}, of {kind.parent.model._meta.label}")
        else:
            described = ("shared", kind.reason)
        yield {"model": model._meta.label, "class": described[0], "rows": described[1]}


def _urls(patterns: Any, prefix: str) -> Iterator[dict[str, str]]:
    for pattern in patterns:
        path = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from _urls(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            yield {"url": path, "demands": _demands(path, pattern.callback)}


def _demands(path: str, view: Any) -> str:
    found, _ = read_once()
    if found is not None:
        scope = {"path": path, "headers": []}
        if found.guard.rules.public.cover(scope):
            return "nothing: it is public"
        if found.sessions is not None and found.sessions.paths(scope):
            return "a session, or a token"
    return demands_of(view)
