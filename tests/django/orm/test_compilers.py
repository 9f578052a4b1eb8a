"""Which of a database's compilers the barrier can stand in: Django's own, and those that leave its hooks alone."""

from typing import Any

import pytest
from django.db.models.sql import compiler
from tenantguard_django.orm.compilers import ScopedCompiler
from tenantguard_django.orm.write_compilers import scoped_compiler

from tenantguard.errors import StatementRefused

HOOKS = ["as_sql", "compile", "execute_sql", "get_combinator_sql", "get_from_clause", "get_qualify_sql"]


def of_its_own(base: type, **members: Any) -> type:
    return type("Compiler", (base,), {"__module__": "somebackend.compiler", **members})


@pytest.mark.parametrize("hook", HOOKS)
def test_a_compiler_that_replaces_a_hook_of_the_barriers_is_refused(hook: str) -> None:
    base = of_its_own(compiler.SQLCompiler, **{hook: lambda *_: ("SELECT 1", ())})
    with pytest.raises(StatementRefused, match="none that the barrier knows"):
        scoped_compiler(base, "SQLCompiler")


def test_a_compiler_that_deletes_in_its_own_way_is_refused() -> None:
    base = of_its_own(compiler.SQLDeleteCompiler, _as_sql=lambda *_: ("DELETE FROM documents", ()))
    with pytest.raises(StatementRefused, match="none that the barrier knows"):
        scoped_compiler(base, "SQLDeleteCompiler")


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (compiler.SQLCompiler, "SQLUpdateCompiler"),
        (object, "SQLCompiler"),
        (compiler.SQLCompiler, "SQLMergeCompiler"),
        (compiler.SQLCompiler, "PositionRef"),
    ],
)
def test_a_compiler_of_another_kind_is_refused(base: type, name: str) -> None:
    with pytest.raises(StatementRefused, match="none that the barrier knows"):
        scoped_compiler(of_its_own(base), name)


def test_a_compiler_that_leaves_the_hooks_alone_is_scoped() -> None:
    base = of_its_own(compiler.SQLCompiler, collapse_group_by=lambda _self, expressions, _having: expressions)
    made = scoped_compiler(base, "SQLCompiler")
    assert issubclass(made, ScopedCompiler)
    assert scoped_compiler(base, "SQLCompiler") is made
