"""What a foreign key carries from shared rows to rows of tenants, over shared tables between them."""

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table

from tenantguard.orm import shared, tenant_key
from tenantguard.orm.side_effects import carrying


def chain(first: dict[str, str], second: dict[str, str]) -> tuple[Table, Table]:
    """Zones, regions that point to them by a column of theirs that shops of tenants point to."""
    metadata = MetaData()
    zones = Table("zones", metadata, Column("code", String(9), primary_key=True), info=shared("zones: a test"))
    Table(
        "regions",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("zone", ForeignKey("zones.code", **first), unique=True),
        info=shared("regions: a test"),
    )
    shops = Table(
        "shops",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("zone", ForeignKey("regions.zone", **second)),
        Column("tenant_id", String(9), nullable=False, info=tenant_key()),
    )
    return zones, shops


@pytest.mark.parametrize(
    ("first", "second", "kind", "carried"),
    [
        ({"ondelete": "CASCADE"}, {"ondelete": "CASCADE"}, "delete", True),
        ({"ondelete": "CASCADE"}, {"ondelete": "SET NULL"}, "delete", True),
        ({"ondelete": "CASCADE"}, {"onupdate": "CASCADE"}, "delete", False),
        ({"ondelete": "SET NULL"}, {"onupdate": "CASCADE"}, "delete", True),
        ({"ondelete": "SET DEFAULT"}, {"onupdate": "SET NULL"}, "delete", True),
        ({"ondelete": "SET NULL"}, {"ondelete": "CASCADE"}, "delete", False),
        ({"ondelete": "RESTRICT"}, {"ondelete": "CASCADE"}, "delete", False),
        ({"onupdate": "CASCADE"}, {"onupdate": "CASCADE"}, "update", True),
        ({"onupdate": "CASCADE"}, {"ondelete": "CASCADE"}, "update", False),
        ({"ondelete": "CASCADE"}, {"ondelete": "CASCADE"}, "update", False),
    ],
)
def test_a_change_is_followed_from_table_to_table(
    first: dict[str, str], second: dict[str, str], kind: str, carried: bool
) -> None:
    zones, shops = chain(first, second)
    found = carrying(zones, kind, lambda _: True)
    assert (found.table if found is not None else None) is (shops if carried else None)


def test_an_update_of_other_columns_is_not_carried_on() -> None:
    zones, _ = chain({"onupdate": "CASCADE"}, {"onupdate": "CASCADE"})
    assert carrying(zones, "update", lambda column: column.name != "code") is None
