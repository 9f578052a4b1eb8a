"""The main job, played against the Django project: ``make demo-django``.

The attempts are those of `examples.fastapi_app.demo`, with the same issuer and the same services behind, and a few more
at the admin.
"""

import re
import sys
from collections.abc import Callable
from contextlib import closing

import httpx2

from examples.fastapi_app import demo
from examples.fastapi_app.stage import Stage


class DjangoStage(Stage):
    """The same stage, on which the document service is the Django project."""

    def _serves(self, service: str) -> list[str]:
        return (
            ["examples.django_app.serve", service] if service in ("documents", "worker") else super()._serves(service)
        )


class DjangoPlay(demo.Play):
    """The same attempts, and some at the admin."""

    def attempts(self) -> list[tuple[str, str, str, Callable[[], str]]]:
        acme, globex = ", ".join(demo.TITLES["acme"]), ", ".join(demo.TITLES["globex"])
        return [
            *super().attempts(),
            ("Ann, staff of acme", "opens the list of documents in the admin", acme, lambda: self._admin("ann")),
            (
                "Sam, staff of both",
                "opens it without choosing a company",
                "302 to /admin/tenant/",
                lambda: self._admin("sam"),
            ),
            ("Sam, staff of both", "chooses globex, and opens it", globex, lambda: self._admin("sam", "globex")),
            ("Ann, staff of acme", "chooses globex", "403", lambda: self._admin("ann", "globex")),
            (
                "Ann, staff of acme",
                "uses her session for the API",
                "401",
                self._session_at_the_api,
            ),
        ]

    def _session_at_the_api(self) -> str:
        with closing(self._session("ann")) as http:
            return str(http.get("/documents").status_code)

    def _session(self, name: str) -> httpx2.Client:
        http = httpx2.Client(base_url=self.stage.app_url, timeout=15.0)
        self._post(http, "/admin/login/", {"username": name, "password": name, "next": "/admin/"})
        return http

    def _post(self, http: httpx2.Client, path: str, form: dict[str, str]) -> httpx2.Response:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', http.get(path).text)
        return http.post(path, data={**form, "csrfmiddlewaretoken": token[1] if token else ""})

    def _admin(self, name: str, company: str | None = None) -> str:
        with closing(self._session(name)) as http:
            if company is not None:
                chosen = self._post(http, "/admin/tenant/", {"tenant": company})
                if chosen.status_code != 302:
                    return str(chosen.status_code)
            page = http.get("/admin/documents/document/")
            if page.status_code != 200:
                return f"{page.status_code} to {page.headers.get('location', '').partition('?')[0]}"
            titles = re.findall(r'class="field-title"><a[^>]*>([^<]*)<', page.text)
            return ", ".join(sorted(titles))


if __name__ == "__main__":
    sys.exit(demo.main(DjangoPlay, DjangoStage))
