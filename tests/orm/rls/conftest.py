"""A database with row-level security and the same rows of two tenants, seen through the bare driver."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.orm.attacks.oddities import SIDE  # its tables belong to the same MetaData
from tests.orm.attacks.world import Base
from tests.orm.rls.lab import Lab, made_lab

ROWS = """
    INSERT INTO countries VALUES ('NZ');
    INSERT INTO folders (id, name, tenant_id) VALUES (1, 'a folder', 'a'), (2, 'b folder', 'b');
    INSERT INTO documents (id, title, size, body, kind, folder_id, tenant_id)
        VALUES (1, 'a doc', 1, '', 'document', 1, 'a'), (2, 'b doc', 1, '', 'document', 2, 'b'),
               (3, 'a report', 1, '', 'report', 1, 'a'), (4, 'b report', 1, '', 'report', 2, 'b');
    INSERT INTO reports (id, pages) VALUES (3, 1), (4, 1);
    INSERT INTO comments (id, text, document_id) VALUES (1, 'of a', 1), (2, 'of b', 2);
    INSERT INTO labels (id, name, tenant_id) VALUES (1, 'a label', 'a'), (2, 'b label', 'b');
    INSERT INTO document_labels (document_id, label_id, tenant_id) VALUES (1, 1, 'a'), (2, 2, 'b');
"""


@pytest.fixture(scope="module", params=[True, False], ids=["sealed", "plain"])
def any_lab(request: pytest.FixtureRequest, postgres_module_url: str) -> Iterator[Lab]:
    """Sealed, and then not: each in the same database."""
    with made_lab(postgres_module_url, Base.metadata, sealed=request.param) as made:
        with made.admin() as admin:
            admin.execute(ROWS)
        yield made
        with made.admin() as admin:
            admin.execute(f"DROP SCHEMA public, tenantguard, {SIDE} CASCADE; CREATE SCHEMA public")


@pytest.fixture(scope="module")
def lab(postgres_module_url: str) -> Iterator[Lab]:
    """Sealed."""
    with made_lab(postgres_module_url, Base.metadata) as made:
        with made.admin() as admin:
            admin.execute(ROWS)
        yield made


@pytest.fixture(scope="module")
def transaction_lab(postgres_server: str) -> Iterator[Lab]:
    """Sealed for each transaction."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        url = postgres_server.replace("/postgres?", f"/{name}?")
        with made_lab(url, Base.metadata, bound_to="transaction") as made:
            with made.admin() as owner:
                owner.execute(ROWS)
            yield made
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def new_lab(postgres_url: str) -> Iterator[Lab]:
    """A sealed one for a test that changes it."""
    with made_lab(postgres_url, Base.metadata) as made:
        with made.admin() as admin:
            admin.execute(ROWS)
        yield made


@pytest.fixture
def new_transaction_lab(postgres_url: str) -> Iterator[Lab]:
    """As `new_lab`, sealed for each transaction."""
    with made_lab(postgres_url, Base.metadata, bound_to="transaction") as made:
        with made.admin() as admin:
            admin.execute(ROWS)
        yield made
