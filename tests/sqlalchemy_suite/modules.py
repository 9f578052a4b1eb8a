"""Which of SQLAlchemy's test modules are run, and the tests whose failing is the barrier's purpose.

Left out are modules that execute no statement (mappings, typing, SQL that is only rendered), and those that measure
SQLAlchemy's own calls and memory. A test is excluded by name alone, with the reason why it can't pass; a name that
does pass is reported, so that the list does not outlive its reasons.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

__all__ = ["DATABASES", "EXCLUDED", "SLICE", "chosen_modules", "reason_of"]

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
    "A SELECT made of text() gives entities, which allow_raw() does not let into a session.": (
        "test_query.py::YieldTest_*::test_basic",
    ),
    "A listener of before_cursor_execute puts another statement in the place of the one that was vouched for.": (
        "test_unitofwork.py::NoRowInsertedTest_*::test_insert_multi_no_pk_correct_exception",
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


def reason_of(test: str) -> str | None:
    """Return why a test is excluded; ``None`` if it is not."""
    return next(
        (reason for reason, names in EXCLUDED.items() if any(fnmatchcase(test, f"*{name}*") for name in names)), None
    )
