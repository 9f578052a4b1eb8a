"""The grammar of the textual parts that a scoped statement may have."""

import pytest

from tenantguard.orm.fragments import (
    is_plain_field,
    is_plain_fragment,
    is_plain_literal,
    is_plain_operator,
    is_plain_prefix,
    is_plain_type,
)

PLAIN = {
    is_plain_fragment: [
        "*",
        "1",
        "-1.5",
        "'%'",
        "'a b-c'",
        "title",
        "documents.title",
        "a.b.c.*",
        "title DESC",
        "id asc",
    ],
    is_plain_operator: ["=", "->>", "@>", "||", "like", "NOT LIKE", "at time zone", " <> "],
    is_plain_prefix: ["DISTINCT", "not  materialized", "ALL"],
    is_plain_type: ["INTEGER", "NUMERIC(10, 2)", "TIMESTAMP WITH TIME ZONE", 'geo."Point"', "VARCHAR(20)[]"],
    is_plain_literal: ["NULL", "1", "-1.5e-3", "'it''s'", "true", "DATE '2026-01-01'", "'x'::VARCHAR"],
    is_plain_field: ["year", "TIMEZONE_HOUR"],
}
REFUSED = {
    is_plain_fragment: [
        "", "title, size", "title size", "lower(title)", "'it''s'", "'a' 'b'", "1; DROP", "1 OR 1", "title--", "a.b.c.d.e",
        "title DESC, 1", "title DESC DESC", "x.select", "é", "'x", "'x')", "1)", "title)", "title\x00", "*)", "(title)",
        *"from union or not select where case exists join".split(),
    ],
    is_plain_operator: [
        "", " ", "--", "=--", "/*", "*/", "= /*", "#", "#>", "=;", "= '' OR 1 =", "and", "or", "xor", "in", "match",
        "=(", "= 1 =", "like select", "<=>=<=>",
    ],
    is_plain_prefix: ["", "ALL x", "DISTINCT ON", "DISTINCT (SELECT 1),", "SQL_CALC_FOUND_ROWS", "NOT"],
    is_plain_type: ["", "INTEGER)", "INTEGER), (SELECT 1", "INT; DROP", "INT--", "INT /*", "a.b.c.d", "NUMERIC(10, 2))", "'x'"],
    is_plain_literal: ["", "1)", "1 OR 1", "'x' OR 1", "'x", "'it's'", "title", "(SELECT 1)", "'x'::a(", "'\\'", "1--"],
    is_plain_field: ["", "year FROM x), (SELECT 1", "year)", "year month", "year--", "1", "é"],
}  # fmt: skip
"""What closes a clause, opens another, calls something, or is more than one word."""


@pytest.mark.parametrize(("holds", "text"), [(holds, text) for holds in PLAIN for text in PLAIN[holds]])
def test_plain_parts_are_let_through(holds, text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(("holds", "text"), [(holds, text) for holds in REFUSED for text in REFUSED[holds]])
def test_other_parts_are_not_plain(holds, text: str) -> None:
    assert not holds(text)
