"""The tests' project as a WSGI server loads it: its own process, and forked workers that share the issuer's keys."""

import json
import os
from pathlib import Path

from django.core.handlers.wsgi import WSGIHandler
from django.db import connections

from tests.django.conftest import make_tables  # which configures Django
from tests.django.login import LOGIN

__all__ = ["TENANTS", "application"]

TENANTS = [f"tenant-{number}" for number in range(10)]

make_tables()
tokens = {tenant: LOGIN.mint(f"user-of-{tenant}", tenant=tenant) for tenant in TENANTS}
connections.close_all()  # which a process does not share with those that it forks
Path(os.environ["TOKENS"]).write_text(json.dumps(tokens))
application = WSGIHandler()
