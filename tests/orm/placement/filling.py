"""Rows of every kind for a tenant, and the bytes of all rows of a place, seen without the barrier."""

import datetime as dt
import decimal
import uuid
from typing import Any

from sqlalchemy import create_engine, insert, null, text
from sqlalchemy.orm import Session

from tenantguard import system
from tenantguard.orm.placement import SHARED, Placement
from tests.orm.placement.conftest import Lab, as_tenant
from tests.orm.placement.models import Colour, Customer, Folder, Line, Note, Order, Template


def fill(lab: Lab, tenant: str, base: int, placement: Placement = SHARED, *, rows: int = 3) -> None:
    """Write rows of every kind, among them a tree, a circle, NULLs in JSON and rows for everybody."""
    with lab.databases.engine(placement) as engine:
        with as_tenant(tenant), Session(engine) as db, db.begin():
            db.add_all([Folder(id=base, name="root"), Folder(id=base + 1, name="leaf", parent_id=base)])
            db.flush()
            for number in range(base, base + rows):
                db.add(
                    Note(
                        id=number,
                        title=f"{tenant} \N{SNOWMAN} {number}\n",
                        folder_id=base + 1,
                        size=decimal.Decimal("1.500"),
                        body=bytes(range(256)),
                        extra={"b": [1.5, None, {"z": 1, "a": "x"}]},
                        made=dt.datetime(2024, 2, 29, 23, 59, 59, 999999),  # noqa: DTZ001 - the column has no zone
                        day=dt.date(2024, 2, 29),
                        token=uuid.UUID(int=number),
                        colour=Colour.BLUE,
                        secret="open sesame",
                        ratio=0.1,
                        done=number % 2 == 0,
                    )
                )
            db.flush()
            db.get(Folder, base).cover_id = base
            db.add(Note(id=base + rows, title="empty", extra=None))
            db.flush()
            db.execute(insert(Note), [{"id": base + rows + 1, "title": "nothing", "tenant_id": tenant}])
            db.execute(insert(Note.__table__).values(id=base + rows + 2, title="null", extra=null(), tenant_id=tenant))
            for number in range(base, base + rows):
                db.add(Line(id=number, note_id=number, number=number, text=f"of {tenant}"))
            db.add(Template(id=base, text=f"own of {tenant}"))
        with system("rows for everybody"), engine.begin() as connection:
            connection.execute(insert(Template.__table__).values(id=base + 500, org=None, text="for everybody"))


def fill_placed(lab: Lab, tenant: str, base: int, placement: Placement = SHARED) -> None:
    """The same for the models with a shared table in a schema."""
    with lab.databases.engine(placement) as engine:
        with system("reference data"), engine.begin() as connection:
            connection.execute(text("INSERT INTO public.countries VALUES ('NZ') ON CONFLICT DO NOTHING"))
        with as_tenant(tenant), Session(engine) as db, db.begin():
            for number in range(base, base + 5):
                db.add(Customer(id=number, name=f"{tenant} {number}", country="NZ"))
            db.flush()
            db.add_all([Order(id=number, customer_id=number, total=number) for number in range(base, base + 5)])


def everything(lab: Lab, placement: Placement = SHARED, *, without: str | None = None) -> dict[str, list[str]]:
    """Every row of a place as text, table by table; without those of a tenant."""
    engine = create_engine(lab.databases.url(placement.database))
    found: dict[str, list[str]] = {}
    with engine.connect() as connection:
        for table in lab.databases.tables:
            schema = table.schema or placement.schema
            name = table.name if schema is None else f"{schema}.{table.name}"
            rows = connection.exec_driver_sql(f"SELECT * FROM {name}").mappings().all()
            if without is not None:
                hidden = _of(connection, without, placement)
                rows = [row for row in rows if (table.name, row.get("id")) not in hidden]
            found[table.name] = sorted(repr(_plain(row)) for row in rows)
    engine.dispose()
    return found


def _plain(row: Any) -> list[tuple[str, Any]]:
    return [(key, bytes(value) if isinstance(value, memoryview) else value) for key, value in row.items()]


def _of(connection: Any, tenant: str, placement: Placement) -> set[tuple[str, Any]]:
    prefix = "" if placement.schema is None else f"{placement.schema}."
    statements = {
        "folders": "SELECT id FROM {p}folders WHERE tenant_id = '{t}'",
        "notes": "SELECT id FROM {p}notes WHERE tenant_id = '{t}'",
        "templates": "SELECT id FROM {p}templates WHERE org = '{t}'",
        "lines": "SELECT l.id FROM {p}lines l JOIN {p}notes n ON n.id = l.note_id WHERE n.tenant_id = '{t}'",
        "customers": "SELECT id FROM {p}customers WHERE tenant_id = '{t}'",
        "orders": "SELECT o.id FROM {p}orders o JOIN {p}customers c ON c.id = o.customer_id WHERE c.tenant_id = '{t}'",
    }
    names = (
        ("customers", "orders")
        if connection.dialect.name == "postgresql"
        else ("folders", "notes", "templates", "lines")
    )
    return {
        (name, key)
        for name in names
        for (key,) in connection.exec_driver_sql(statements[name].format(p=prefix, t=tenant)).all()
    }
