"""The code of the page on Django's ORM runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BEFORE = """
import django
from django.conf import settings

from tenantguard_django.orm import CONTRIB_MODELS, shared

"""
SETTINGS = """
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "billing"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    TENANTGUARD=TENANTGUARD,
)
django.setup()

from django.core.management import call_command
from django.db import connection
from django.db.models import F, Sum, Value

from billing.models import Country, Invoice, Line, Order, Plan, Template, Ticket
from tenantguard import allow_raw, bind, service_identity, system
from tenantguard.errors import ForeignTenantWrite, NotBound, StatementRefused
from tenantguard_django.orm import move_rows, protect, read_across, unclassified_models, wide, write_across
from tenantguard_django.orm.rls import EnableRowLevelSecurity

protect()
call_command("migrate", run_syncdb=True, verbosity=0)
assert unclassified_models() == []
"""


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    script = BEFORE
    for block in BLOCK.findall((ROOT / "docs" / "django-orm.md").read_text()):
        if block.startswith("# billing/models.py"):
            (tmp_path / "billing").mkdir()
            (tmp_path / "billing" / "__init__.py").touch()
            (tmp_path / "billing" / "models.py").write_text(block)
        elif block.startswith("# settings"):
            script += block + SETTINGS
        elif not block.startswith("# apps.py"):  # PostgreSQL's, of which other tests know
            script += block
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
