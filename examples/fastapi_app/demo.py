"""The main job, played: ``make demo``.

Starts an issuer, the document service, two services behind it and a worker, tries what users and attackers try, and
prints what was expected and what happened. The exit status is 1 if any of it differs.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
from celery import Celery
from rich.console import Console
from rich.table import Table

from examples.fastapi_app import app
from examples.fastapi_app.database import COMPANIES
from examples.fastapi_app.jobs import REPORT
from examples.fastapi_app.stage import Stage
from tenantguard.testing import DevIssuer

TITLES = {
    company: sorted(title for titles in folders.values() for title in titles) for company, folders in COMPANIES.items()
}

_AT_THE_LEDGER = "acme: billing-app (service) for documents-app (service) for copilot (agent) for alice (human)"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of the table."""

    who: str
    tried: str
    expected: str
    happened: str

    @property
    def held(self) -> bool:
        return self.happened == self.expected


class Play:
    """The attempts, over real HTTP."""

    def __init__(self, stage: Stage, http: httpx2.Client) -> None:
        self.stage, self.http = stage, http
        self.alice, self.bob = self._log_in("alice"), self._log_in("bob")
        self.agent = self._agent("documents:read")
        self.wider_agent = self._agent("documents:read documents:write usage:read")
        self.service = self._token(
            {"grant_type": "client_credentials", "audience": app.AUDIENCE, "scope": "documents:read"}, "invoice-sync"
        )

    def _token(self, form: dict[str, str], client: str) -> str:
        secret = self.stage.secrets.get(client)
        if secret is None:  # a public client only says its name (RFC 6749, section 2.1)
            form = {**form, "client_id": client}
        auth = httpx2.BasicAuth(client, secret) if secret else httpx2.USE_CLIENT_DEFAULT
        response = self.http.post(self.stage.issuer.token_endpoint, data=form, auth=auth)
        response.raise_for_status()
        token: str = response.json()["access_token"]
        return token

    def _agent(self, scope: str) -> str:
        """Return a token of the copilot for Alice."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": self.alice,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": app.AUDIENCE,
            "scope": scope,
        }
        return self._token(form, "copilot")

    def _log_in(self, user: str) -> str:
        form = {
            "grant_type": "password",
            "username": user,
            "password": user,
            "audience": app.AUDIENCE,
            "scope": "documents:read documents:write usage:read",
        }
        return self._token(form, "web")

    def call(self, method: str, path: str, token: str | None, **kwargs: Any) -> httpx2.Response:
        headers = {**kwargs.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        return self.http.request(method, f"{self.stage.app_url}{path}", headers=headers, **kwargs)

    def titles(self, token: str, path: str = "/documents", **kwargs: Any) -> str:
        response = self.call("GET", path, token, **kwargs)
        if response.status_code != 200:
            return _refusal(response)
        return ", ".join(sorted(found["title"] for found in response.json()))

    def attempts(self) -> list[tuple[str, str, str, Callable[[], str]]]:
        acme, globex = ", ".join(TITLES["acme"]), ", ".join(TITLES["globex"])
        return [
            ("Alice of acme", "lists her documents", acme, lambda: self.titles(self.alice)),
            ("Bob of globex", "sends the same query", globex, lambda: self.titles(self.bob)),
            ("a service of acme", "lists documents, with client credentials", acme, lambda: self.titles(self.service)),
            ("an agent for Alice", "lists documents with a narrower token", acme, lambda: self.titles(self.agent)),
            (
                "an agent for Alice",
                "adds a document, which its token does not allow",
                '403 insufficient_scope, scope="documents:write"',
                lambda: _refusal(self.call("POST", "/documents", self.agent, json={"title": "Planted"})),
            ),
            (
                "an agent for Alice",
                "asks who it is",
                "tenant acme, copilot (agent) for alice",
                lambda: _who(self.call("GET", "/whoami", self.agent)),
            ),
            (
                "Alice of acme",
                "asks a route that forgets its filter",
                '{"acme": 3}',
                lambda: json.dumps(self.call("GET", "/reports/documents-per-company", self.alice).json()),
            ),
            (
                "Alice of acme",
                "reads a document of globex by its number",
                "404 No such document.",
                self._foreign_document,
            ),
            (
                "Alice of acme",
                "forges the header X-Tenant-ID: globex",
                "403 Tenant refused",
                lambda: self.titles(self.alice, headers={"X-Tenant-ID": "globex"}),
            ),
            (
                "Alice of acme",
                "asks a route that uses raw SQL",
                "500, no row; StatementRefused in the log",
                self._raw_sql,
            ),
            ("nobody", "lists documents without a token", "401", lambda: self._anonymous()),
            ("a thief", "uses Alice's token when it has expired", "401 invalid_token", self._expired),
            ("a stranger", "uses a token of another issuer", "401 invalid_token", self._stranger),
            ("a forger", "changes the tenant in Alice's token", "401 invalid_token", self._forged),
            (
                "Alice of acme",
                "lets the copilot call the billing service",
                "acme: documents-app (service) for alice (human)",
                lambda: self._downstream(self.alice),
            ),
            (
                "an agent for Alice",
                "does the same, without the scope that billing asks for",
                "502 Upstream call failed",
                lambda: _refusal(self.call("POST", "/copilot/summary", self.agent)),
            ),
            (
                "an agent for Alice",
                "lets the copilot call billing, which calls the ledger",
                _AT_THE_LEDGER,
                lambda: self._at_the_ledger(self.wider_agent),
            ),
            (
                "an agent for Alice",
                "puts a report off; a worker calls on when the request is gone",
                _AT_THE_LEDGER,
                lambda: self._report(self.wider_agent),
            ),
            (
                "a stranger",
                "writes a job for Alice's document into the queue",
                "not run; refused (missing)",
                self._planted_job,
            ),
        ]

    def _anonymous(self) -> str:
        response = self.call("GET", "/documents", None)
        return _refusal(response) if "www-authenticate" in response.headers else "no WWW-Authenticate"

    def _foreign_document(self) -> str:
        foreign = self.call("GET", "/documents", self.bob).json()[0]["id"]
        response = self.call("GET", f"/documents/{foreign}", self.alice)
        return f"{response.status_code} {response.json()['detail']}"

    def _raw_sql(self) -> str:
        response = self.call("GET", "/reports/raw", self.alice)
        leaked = any(title in response.text for titles in TITLES.values() for title in titles)
        logged = "StatementRefused" in self.stage.log()
        return (
            f"{response.status_code}, {'rows!' if leaked else 'no row'}; "
            f"{'StatementRefused' if logged else 'nothing'} in the log"
        )

    def _expired(self) -> str:
        expired = self.stage.issuer.mint(
            subject="alice", tenant="acme", audience=app.AUDIENCE, scopes="documents:read", expires_in=-3600
        )
        return self.titles(expired)

    def _stranger(self) -> str:
        other = DevIssuer("http://127.0.0.1:9/")
        return self.titles(other.mint(subject="alice", tenant="acme", audience=app.AUDIENCE, scopes="documents:read"))

    def _forged(self) -> str:
        thief = DevIssuer(self.stage.issuer_url)  # says that it is the issuer, but has other keys
        return self.titles(thief.mint(subject="alice", tenant="globex", audience=app.AUDIENCE, scopes="documents:read"))

    def _downstream(self, token: str) -> str:
        response = self.call("POST", "/copilot/summary", token)
        if response.status_code != 200:
            return _refusal(response)
        usage = response.json()["usage"]
        return f"{usage['tenant']}: {' for '.join(usage['chain'])}"

    def _at_the_ledger(self, token: str) -> str:
        response = self.call("POST", "/copilot/summary", token)
        if response.status_code != 200:
            return _refusal(response)
        seen = response.json()["usage"]["ledger"]
        if f"ledger was called: {seen}" not in self.stage.log():
            return "the ledger printed nothing"
        return f"{seen['tenant']}: {' for '.join(seen['chain'])}"

    def _report(self, token: str) -> str:
        response = self.call("POST", "/copilot/report", token)
        if response.status_code != 202:
            return _refusal(response)
        path = f"/documents/{response.json()['document_id']}/comments"
        return self._wait_for(lambda: next((one for one in self._comments(path) if one.startswith("acme: ")), None))

    def _comments(self, path: str) -> list[str]:
        comments: list[str] = self.call("GET", path, self.alice).json()
        return comments

    def _planted_job(self) -> str:
        document = self.call("GET", "/documents", self.alice).json()[-1]["id"]
        folder = self.stage.queue_folder
        forger = Celery("forger", broker="filesystem://", set_as_current=False)
        forger.conf.broker_transport_options = {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
        }
        forger.send_task(REPORT, (document,))
        forger.close()
        told = self._wait_for(lambda: re.search(r"job refused \(\w+\)", self.stage.log()))
        written = any(one.startswith("acme: ") for one in self._comments(f"/documents/{document}/comments"))
        return f"{'run' if written else 'not run'}; {told.removeprefix('job ')}"

    def _wait_for(self, found: Callable[[], object]) -> str:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            result = found()
            if result:
                return result[0] if isinstance(result, re.Match) else str(result)
            time.sleep(0.1)
        return "nothing happened"


def _refusal(response: httpx2.Response) -> str:
    """Put a refusal in the protocol's words: the code of the challenge (RFC 6750), else the problem's title."""
    challenge = response.headers.get("www-authenticate", "")
    parts = dict(
        part.strip().partition("=")[::2] for part in challenge.removeprefix("Bearer").split(",") if "=" in part
    )
    if "error" in parts:
        scope = f", scope={parts['scope']}" if "scope" in parts else ""
        return f"{response.status_code} {parts['error'].strip(chr(34))}{scope}"
    if response.status_code == 401:
        return "401"
    return f"{response.status_code} {response.json().get('title', '')}"


def _who(response: httpx2.Response) -> str:
    who = response.json()
    return f"tenant {who['tenant']}, {who['actor']} ({who['type']}) for {who['subject']}"


def play(stage: Stage, kind: type[Play] = Play) -> list[Attempt]:
    """Play every attempt against a stage, in order."""
    played = []
    with httpx2.Client(timeout=15.0) as http:
        for who, tried, expected, attempt in kind(stage, http).attempts():
            try:
                happened = attempt()
            except (httpx2.HTTPError, LookupError, ValueError) as error:
                happened = f"{type(error).__name__}: {error}"
            played.append(Attempt(who, tried, expected, happened))
    return played


def show(played: list[Attempt], console: Console) -> None:
    """Print the table."""
    table = Table(title="tenantguard: what was tried, and what happened", show_lines=False, expand=False)
    table.add_column("", width=2)
    table.add_column("who", style="bold")
    table.add_column("tried", overflow="fold")
    table.add_column("expected", style="dim", overflow="fold")
    table.add_column("happened", overflow="fold")
    for attempt in played:
        mark, colour = ("✓", "green") if attempt.held else ("✗", "bold red")
        table.add_row(
            f"[{colour}]{mark}[/]", attempt.who, attempt.tried, attempt.expected, f"[{colour}]{attempt.happened}[/]"
        )
    console.print(table)
    held = sum(attempt.held for attempt in played)
    console.print(f"{held} of {len(played)} went as expected.", style="green" if held == len(played) else "bold red")


def main(kind: type[Play] = Play, stage_kind: type[Stage] = Stage) -> int:
    parser = argparse.ArgumentParser(description="Play the main job of tenantguard on loopback.")
    parser.add_argument("--database-url", help="sqlite:///… or postgresql://…; a temporary SQLite file by default")
    parser.add_argument("--json", action="store_true", help="print the attempts as JSON instead of a table")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    with ExitStack() as stack:
        with console.status("Starting the issuer, three services and a worker …"):
            stage = stack.enter_context(stage_kind(options.database_url))
        with console.status("Playing …"):
            played = play(stage, kind)
    if options.json:
        console.print_json(data=[{**_fields(attempt), "held": attempt.held} for attempt in played])
    else:
        show(played, console)
    return 0 if all(attempt.held for attempt in played) else 1


def _fields(attempt: Attempt) -> dict[str, str]:
    return {"who": attempt.who, "tried": attempt.tried, "expected": attempt.expected, "happened": attempt.happened}


if __name__ == "__main__":
    sys.exit(main())
