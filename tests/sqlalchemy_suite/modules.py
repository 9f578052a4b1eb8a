"""Which of SQLAlchemy's test modules are run, and the tests whose failing is the barrier's purpose.

Left out are modules that execute no statement (mappings, typing, SQL that is only rendered), and those that measure
SQLAlchemy's own calls and memory. A test is excluded by name alone, with the reason why it can't pass; a name of
which no test fails is reported, so that the list does not outlive its reasons.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

__all__ = ["DATABASES", "EXCLUDED", "SLICE", "chosen_modules", "exclusion_of"]

DATABASES: Final = ("sqlite", "aiosqlite", "postgresql", "asyncpg", "mariadb")

_FOLDERS: Final = ("test/orm", "test/ext", "test/sql", "test/engine", "test/dialect")
_WITHOUT_STATEMENTS: Final = frozenset(
    f"test/{folder}/test_{name}.py"
    for folder, names in {
        "engine": "parseconnect pool processors",
        "ext": "extendedattr",
        "ext/declarative": "deprecations",
        "orm": "attributes collection compile descriptor instrumentation rel_fn session_state_change sync "
        "syntax_extensions utils",
        "orm/declarative": "abs_import_only clsregistry dc_transforms dc_transforms_future_anno_sync "
        "tm_future_annotations tm_future_annotations_sync typed_mapping",
        "orm/inheritance": "deprecations",
        "sql": "compare compiler cte external_traversal insert inspect labels lateral operators roles select "
        "selectable syntax_extensions table_via_select tablesample text typed_froms utils values",
    }.items()
    for name in names.split()
)
_OTHER_DATABASES: Final = ("test/dialect/mssql/", "test/dialect/oracle/")

SLICE: Final = (
    "test/orm/test_unitofwork.py",
    "test/orm/test_selectin_relations.py",
    "test/orm/test_versioning.py",
    "test/orm/dml/test_bulk_statements.py",
    "test/sql/test_returning.py",
    "test/sql/test_resultset.py",
)
"""A few modules that pass through every part of the barrier, in half a minute."""

EXCLUDED: Final[dict[str, tuple[str, ...]]] = {
    "Text gives entities: allow_raw() lets text run, and lets nothing that it reads into a session.": (
        "test_assorted_eager.py::EagerTest*::test_without_outerjoin_literal",
        "test_eager_relations.py::EagerTest*::test_no_false_hits",
        "test_eager_relations.py::EagerTest*::test_one_and_many",
        "test_query.py::YieldTest*::test_basic",
        "test_text.py::TextTest*::test_columns_m*",
        "test_text.py::TextTest*::test_from_statement_params_execute*",
        "test_text.py::TextTest*::test_related_eagerload_against_text*",
        "test_text.py::TextTest*::test_select_star*",
        "test_text.py::TextTest*::test_via_textasfrom_*",
        "test_text.py::TextTest*::test_whereclause*",
    ),
    "A table() of the test's own is known by its name alone, and executed or compiled for the engine.": (
        "test_froms.py::SelectFromTest*::test_select_from_aliased_one",
        "test_insert_exec.py::TableInsertTest*::test_direct_params*",
        "test_insert_exec.py::TableInsertTest*::test_implicit_pk*",
        "test_resultset.py::CursorResultTest*::test_column_accessor_textual_select",
        "test_resultset.py::KeyTargetingTest*::test_columnclause_schema_column_one",
        "test_suite.py::DistinctOnTest*::test_distinct_on",
        "test_suite.py::PercentSchemaNamesTest*::test_*roundtrip",
        "test_text.py::TextTest*::test_via_select",
        "test_types.py::EnumTest*::test_duplicate_values_accepted*",
        "test_types.py::ExpressionTest*::test_typedec_righthand_coercion",
    ),
    "A listener of before_cursor_execute puts another statement in the place of the one that was vouched for.": (
        "test_horizontal_shard.py::TableNameConventionShardTest*",
        "test_unitofwork.py::NoRowInsertedTest*::test_insert_multi_no_pk_correct_exception",
    ),
    "The test puts an execution context of its own into the dialect, and nothing would check its statements.": (
        "test_insert_exec.py::InsertExecTest*::test_lastrowid_zero",
        "test_resultset.py::AlternateCursorResultTest*",
    ),
    "The test, or what it requires, uses the driver's own cursor or connection, or puts a mock in its place.": (
        "test_resultset.py::CursorResultTest*::test_no_rowcount_on_selects_inserts",
        "test_compiler.py::RegexpTest*::test_determinsitic_parameter",
        "test_execute.py::*::test_exception_*non_dbapi_error",
        "test_execute.py::ExecuteDriverTest*::test_stmt_exception_pickleable_plus_dbapi",
        "test_reflection.py::ConstraintReflectionTest*::test_reflect_partial_indexes",
    ),
    "The test renders a name without quotes that is more than a word.": (
        "test_reflection.py::ConstraintReflectionTest*::test_constraint_cols*",
    ),
    "The result of DDL, which runs in a system context, is read outside of it.": (
        "test_ddlevents.py::DDLExecutionTest*::test_ddl_execute",
        "test_ddlevents.py::DDLExecutionTest*::test_platform_escape",
    ),
    "MetaData.info holds the rule by which all tables are shared, and the test asserts that it holds nothing.": (
        "test_metadata.py::InfoTest*::test_metadata_info",
        "test_metadata.py::ToMetaDataTest*::test_copy_info",
    ),
}
"""Names of tests, as patterns of `fnmatch`, by the reason."""


def chosen_modules(source: Path, database: str, patterns: list[str]) -> list[str]:
    """Return the modules to run, as paths inside of SQLAlchemy's source.

    Args:
        source: the directory of SQLAlchemy's source distribution.
        database: one of `DATABASES`.
        patterns: parts of names that are asked for, such as ``"orm/test_query"``; all modules if there are none.
    """
    found = [
        path.relative_to(source).as_posix()
        for folder in _FOLDERS
        for path in sorted((source / folder).rglob("test_*.py"))
        if not path.stem.endswith("_py314")
    ]
    mine = "postgresql" if database in {"postgresql", "asyncpg"} else "mysql" if database == "mariadb" else "sqlite"
    others = tuple(f"test/dialect/{name}/" for name in ("sqlite", "postgresql", "mysql") if name != mine)
    found = [
        one for one in found if one not in _WITHOUT_STATEMENTS and not one.startswith((*others, *_OTHER_DATABASES))
    ]
    if patterns:
        found = [one for one in found if any(pattern in one for pattern in patterns)]
    return found


def exclusion_of(test: str) -> tuple[str, str] | None:
    """Return the name by which a test is excluded, and the reason; ``None`` if it is not."""
    return next(
        ((name, why) for why, names in EXCLUDED.items() for name in names if fnmatchcase(test, f"*/{name}")), None
    )
