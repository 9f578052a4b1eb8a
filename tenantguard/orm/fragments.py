"""Which textual parts a scoped statement may have.

SQLAlchemy renders some strings as they are: ``text()``, ``literal_column()``, custom operators, prefixes, hints,
type names, EXTRACT fields. Any of them can close a clause and open another, so each is held to a small grammar:
constants, column names and known words. What does not fit is refused with the name of the construct, never
with its text, which may hold values.
"""

import re
from typing import Final

__all__ = [
    "is_plain_field",
    "is_plain_fragment",
    "is_plain_literal",
    "is_plain_operator",
    "is_plain_prefix",
    "is_plain_type",
]

_RESERVED: Final = frozenset(
    """
    all alter analyze and any as attach between by call case cast check collate commit copy create cross cursor
    database delete describe detach distinct do drop else end escape except exec execute exists explain fetch for
    force from full glob grant group handler having if in inner insert intersect into is join lateral left like limit
    load lock match minus natural not nothing notnull of offset on only or order outer over partition pragma procedure
    recursive references regexp reindex rename replace returning revoke right rollback savepoint select set show
    similar some start straight_join table then to transaction trigger truncate union unique update using vacuum
    values view when where window with xor div mod rlike sounds binary interval
    """.split()
)
_NUMBER: Final = re.compile(r"-?\d{1,30}(\.\d{1,30})?", re.ASCII)
_STRING: Final = re.compile(r"'[A-Za-z0-9 _.:%-]{0,128}'", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}(\.[A-Za-z_][A-Za-z0-9_]{0,127}){0,2}(\.\*)?", re.ASCII)
_OPERATOR_SYMBOLS: Final = re.compile(r"[-+*/<>=!~@#%^&|?:]{1,6}", re.ASCII)
_OPERATOR_WORDS: Final = frozenset(
    """
    like ilike glob regexp rlike match in is and or xor div mod overlaps contains collate similar to not distinct from
    at time zone adjacent
    """.split()
) - {"and", "or", "xor", "in", "match"}
_PREFIXES: Final = frozenset(
    {"ALL", "DISTINCT", "MATERIALIZED", "NOT MATERIALIZED", "SQL_NO_CACHE", "STRAIGHT_JOIN", "HIGH_PRIORITY"}
)
_TYPE: Final = re.compile(
    r"(\"[A-Za-z0-9_ ]+\"|[A-Za-z_][A-Za-z0-9_]*)(\.(\"[A-Za-z0-9_ ]+\"|[A-Za-z_][A-Za-z0-9_]*))?( [A-Za-z_]+)*"
    r"(\(\s*[A-Za-z0-9_]+(\s*,\s*-?[A-Za-z0-9_]+)*\s*\))?( [A-Za-z_]+)*( COLLATE \"[A-Za-z0-9_.-]+\")?(\[\])*",
    re.ASCII,
)
_LITERAL: Final = re.compile(
    r"NULL|TRUE|FALSE|true|false|-?\d{1,400}(\.\d{1,400})?([eE][-+]?\d{1,4})?|"
    r"(N|X|x|b|B|DATE |TIME |TIMESTAMP )?'([^'\\]|''|\\\\|\\(?=[^'\\]))*'(::[A-Za-z_][A-Za-z0-9_ ]{0,63})?",
    re.ASCII,
)
_FIELD: Final = re.compile(r"[A-Za-z_]{1,32}", re.ASCII)


def is_plain_fragment(text: str) -> bool:
    """True for ``*``, a number, a string of plain characters, or a (dotted) name, with ASC or DESC after it.

    No function, keyword or operator is one. SQLAlchemy itself writes the ``'%'`` of startswith() so.
    """
    if _STRING.fullmatch(text):
        return True
    words = text.split()
    if len(words) == 2 and words[1].upper() in {"ASC", "DESC"}:
        words.pop()
    if len(words) != 1:
        return False
    word = words[0]
    if word == "*" or _NUMBER.fullmatch(word):
        return True
    return bool(_NAME.fullmatch(word)) and not any(part in _RESERVED for part in word.lower().split("."))


def is_plain_operator(text: str) -> bool:
    """True for an operator made of symbols, or of known words, that opens no comment and ends no statement."""
    text = text.strip()
    if _OPERATOR_SYMBOLS.fullmatch(text):
        return "--" not in text and "/*" not in text and "*/" not in text and not text.startswith("#")
    words = text.lower().split()
    return bool(words) and all(word in _OPERATOR_WORDS for word in words)


def is_plain_prefix(text: str) -> bool:
    """True for the known words before and after a statement's or CTE's body, such as DISTINCT."""
    return " ".join(text.upper().split()) in _PREFIXES


def is_plain_type(text: str) -> bool:
    """True for a type name with arguments, as in ``NUMERIC(10, 2)`` or ``TIMESTAMP WITH TIME ZONE``."""
    return bool(_TYPE.fullmatch(text))


def is_plain_literal(text: str) -> bool:
    """True for a number, a quoted string, NULL or a boolean, as a value that is rendered into the text."""
    return bool(_LITERAL.fullmatch(text))


def is_plain_field(text: str) -> bool:
    """True for the field of an EXTRACT, such as ``year``."""
    return bool(_FIELD.fullmatch(text))
