"""Which modules are changed, and which tests are asked about each: one selection for each ORM."""

from typing import Final, NamedTuple

__all__ = ["SELECTIONS", "Selection"]


class Selection(NamedTuple):
    """The modules and tests of one ORM.

    Args:
        first: the tests that are asked first about each module.
        all: who survives the first tests is asked about by all of these.
        on_sqlite: the keywords of those that need no server.
        on_servers: who survives on SQLite as well is asked about by these.
    """

    first: dict[str, tuple[str, ...]]
    all: tuple[str, ...]
    on_sqlite: str
    on_servers: str


_ATTACKS: Final = {name: f"tests/orm/attacks/test_{name}.py" for name in ("reads", "writes", "connections", "state")}
_ORM: Final = {
    name: f"tests/orm/test_{name}.py"
    for name in "carried_changes mysql_checks session_checks declarations write_checks link_checks dialect_steps own_renderings textual_parts fences scope_checks refusals executions fragments doors family reach last_steps key_comparison model_libraries mariadb".split()
}
_OWN: Final = {"own reads": "tests/orm/test_reads.py", "own writes": "tests/orm/test_writes.py"}
_FILES: Final = {
    **_OWN,
    **_ORM,
    **_ATTACKS,
    "binding": "tests/context/test_binding.py",
    "block_checks": "tests/context/test_block_checks.py",
    "placed": "tests/orm/placement/test_attacks.py",
}

_NAMES: Final = {
    "orm/compiler": "fences,executions,doors,refusals",
    "orm/execution": "scope_checks,executions,doors,refusals,last_steps,placed,connections",
    "orm/scoping": "mysql_checks,fences,scope_checks,own reads,reads",
    "orm/predicates": "scope_checks,own reads,reach",
    "orm/froms": "scope_checks,fences,own reads,reads",
    "orm/writes": "write_checks,own_renderings,own writes,writes",
    "orm/link_writes": "link_checks,family,reach,writes",
    "orm/links": "link_checks,family,reach,writes",
    "orm/vouching": "textual_parts,own_renderings,refusals,connections",
    "orm/mysql": "mysql_checks,mariadb",
    "orm/key_types": "key_comparison,declarations",
    "orm/protect": "dialect_steps,last_steps,session_checks,scope_checks,declarations,doors,refusals",
    "orm/fragments": "fragments,refusals,connections",
    "orm/identifiers": "session_checks,refusals,connections",
    "orm/connections": "session_checks,doors,placed,connections",
    "orm/last_steps": "dialect_steps,last_steps",
    "orm/results": "session_checks,state",
    "orm/pins": "session_checks,state",
    "orm/attached": "session_checks,state",
    "orm/strangers": "session_checks,doors,connections",
    "orm/side_effects": "carried_changes,declarations,writes",
    "orm/classify": "declarations,refusals,model_libraries,family",
    "orm/marks": "declarations,model_libraries,reach,refusals",
    "orm/tables": "declarations,refusals,model_libraries",
    "orm/lifts": "declarations,reach,doors",
    "orm/caches": "session_checks,doors,reach,state",
    "binding": "block_checks,session_checks,binding,doors,reach",
    "permits": "block_checks,binding,doors,reach",
    "blocks": "block_checks,binding",
}

_DJANGO: Final = {
    name: f"tests/django/orm/test_{name}.py"
    for name in "reads writes pointers own_rows bindings insert_texts lifts dimensions rendering oracles wrappers iterations declarations more_attacks compilers".split()
}
_DJANGO_NAMES: Final = {
    "django/orm/compilers": "more_attacks,rendering,oracles,iterations,wrappers,reads,lifts",
    "django/orm/write_compilers": "compilers,more_attacks,insert_texts,lifts,writes,pointers",
    "django/orm/writes": "more_attacks,pointers,insert_texts,dimensions,lifts,writes",
    "django/orm/inserts": "insert_texts,pointers",
    "django/orm/links": "more_attacks,pointers,writes",
    "django/orm/moves": "more_attacks,lifts",
    "django/orm/lifts": "lifts",
    "django/orm/predicates": "dimensions,reads,own_rows,bindings",
    "django/orm/criteria": "oracles,own_rows,reads",
    "django/orm/failing": "oracles",
    "django/orm/vouching": "more_attacks,rendering,reads",
    "django/orm/guard": "more_attacks,wrappers,bindings,rendering,reads",
    "django/orm/drivers": "wrappers,rendering,bindings,reads",
    "django/orm/results": "more_attacks,bindings,iterations",
    "django/orm/keys": "declarations,reads,writes",
    "django/orm/classify": "declarations",
    "django/orm/marks": "declarations",
    "django/orm/connections": "more_attacks,bindings,wrappers,declarations",
}


def _selection(files: dict[str, str], names: dict[str, str], on_sqlite: str, on_servers: str) -> Selection:
    first = {module: tuple(files[name] for name in some.split(",")) for module, some in names.items()}
    return Selection(first, tuple(files.values()), on_sqlite, on_servers)


SELECTIONS: Final = {
    "sqlalchemy": _selection(
        _FILES,
        _NAMES,
        "not (postgresql or mariadb or asyncpg or psycopg or asyncmy or aiomysql or pymysql)",
        "postgresql or mariadb",
    ),
    "django": _selection(_DJANGO, _DJANGO_NAMES, "not postgresql", "postgresql"),
}
