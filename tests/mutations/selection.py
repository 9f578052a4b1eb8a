"""Which modules are changed, and which tests are asked about each."""

from typing import Final

__all__ = ["ALL", "FIRST", "ON_SERVERS", "ON_SQLITE"]

_ATTACKS: Final = {name: f"tests/orm/attacks/test_{name}.py" for name in ("reads", "writes", "connections", "state")}
_ORM: Final = {
    name: f"tests/orm/test_{name}.py"
    for name in "mysql_checks session_checks declarations write_checks link_checks dialect_steps own_renderings textual_parts fences scope_checks refusals executions fragments doors family reach last_steps key_comparison model_libraries mariadb".split()
}
_OWN: Final = {"own reads": "tests/orm/test_reads.py", "own writes": "tests/orm/test_writes.py"}
_FILES: Final = {
    **_OWN,
    **_ORM,
    **_ATTACKS,
    "binding": "tests/context/test_binding.py",
    "block_checks": "tests/context/test_block_checks.py",
}

ALL: Final = tuple(_FILES.values())
"""Who survives the first tests is asked about by all of these."""

ON_SQLITE: Final = "not (postgresql or mariadb or asyncpg or psycopg or asyncmy or aiomysql or pymysql)"
ON_SERVERS: Final = "postgresql or mariadb"
"""Who survives on SQLite as well is asked about on the others."""

_NAMES: Final = {
    "orm/compiler": "fences,executions,doors,refusals",
    "orm/execution": "scope_checks,executions,doors,refusals,last_steps,connections",
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
    "orm/connections": "session_checks,doors,connections",
    "orm/last_steps": "dialect_steps,last_steps",
    "orm/results": "session_checks,state",
    "orm/pins": "session_checks,state",
    "orm/attached": "session_checks,state",
    "orm/strangers": "session_checks,doors,connections",
    "orm/side_effects": "declarations,writes",
    "orm/classify": "declarations,refusals,model_libraries,family",
    "orm/marks": "declarations,model_libraries,reach,refusals",
    "orm/tables": "declarations,refusals,model_libraries",
    "orm/lifts": "declarations,reach,doors",
    "orm/caches": "session_checks,doors,reach,state",
    "binding": "block_checks,session_checks,binding,doors,reach",
    "permits": "block_checks,binding,doors,reach",
    "blocks": "block_checks,binding",
}
FIRST: Final = {module: tuple(_FILES[name] for name in names.split(",")) for module, names in _NAMES.items()}
"""The tests that are asked first about each module."""
