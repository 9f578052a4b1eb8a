"""Other execute wrappers see statements of the barrier's and of Django's own, and get no further right by it."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction

from tenantguard import allow_raw, bind
from tenantguard.errors import StatementRefused, TenantGuardError
from tests.django.orm.models import Country, Document
from tests.django.orm.world import A

D = Document.objects
SECRET = "SELECT title FROM ormtests_document"

WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "cursor": lambda cursor, _: cursor.execute(SECRET),
    "cursor below": lambda cursor, _: cursor.cursor.execute(SECRET),
    "cursor below with the same parameters": lambda cursor, params: cursor.cursor.execute(SECRET, params),
    "another cursor": lambda cursor, _: cursor.db.cursor().execute(SECRET),
    "driver": lambda cursor, _: cursor.db.connection.execute(SECRET),
    "procedure": lambda cursor, _: cursor.cursor.callproc("pg_sleep"),
    "copy": lambda cursor, _: cursor.cursor.copy(f"COPY ({SECRET}) TO STDOUT").__enter__(),
}
MOMENTS: dict[str, Callable[[str], Any]] = {
    "a query": lambda _: D.count(),
    "a shared query": lambda _: Country.objects.count(),
    "a savepoint": lambda alias: connections[alias].savepoint(),
    "a savepoint's end": lambda alias: connections[alias].savepoint_commit(connections[alias].savepoint()),
    "a look at constraints": lambda alias: connections[alias].check_constraints(),
    "the beginning of a transaction": lambda alias: connections[alias].cursor().execute("SAVEPOINT x"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_wrapper_that_sends_statements_of_its_own_is_refused(world: str, moment: Any, way: Any) -> None:
    found: list[object] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not found:
            try:
                found.append(way(context["cursor"], params))
            except (TenantGuardError, AttributeError) as error:
                found.append(error)
        return execute(sql, params, many, context)

    with bind(A), transaction.atomic(using=world):
        with connections[world].execute_wrapper(wrapper):
            moment(world)
        transaction.set_rollback(True, using=world)
    missing = AttributeError if connections[world].vendor == "sqlite" else TenantGuardError
    assert isinstance(found[0], TenantGuardError | missing)


def test_savepoints_are_wrapped_as_ever(world: str) -> None:
    seen: list[str] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql.split(" ")[0])
        return execute(f"/* traced */ {sql}", params, many, context)

    traced = connections[world].execute_wrapper(wrapper)
    with bind(A), transaction.atomic(using=world), traced, transaction.atomic(using=world):
        assert D.count() == 4
    assert seen == ["SAVEPOINT", "SELECT", "RELEASE"]


def test_estimates_of_all_tenants_rows_are_not_shown(world: str) -> None:
    with bind(A):
        assert Country.objects.all().explain()
        if connections[world].vendor == "sqlite":
            assert D.all().explain()  # tells of indexes alone
            return
        for options in ({}, {"format": "json"}, {"analyze": True}):
            with pytest.raises(StatementRefused, match="EXPLAIN"):
                D.filter(title="a guess").explain(**options)
        with allow_raw("a slow query"):
            assert D.all().explain()
