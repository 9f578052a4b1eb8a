"""The barrier in Django's ORM: every statement is scoped to the bound tenant, or refused.

Models are declared owned, owned through a parent, or shared; `protect` puts the barrier before a database. What is
bound, and the doors beyond it (`system`, `allow_raw`, `read_tenants`), are the core's.
"""

from tenantguard.permits import allow_raw, read_tenants, system
from tenantguard_django.orm.classify import classify
from tenantguard_django.orm.connections import is_protected, protect
from tenantguard_django.orm.lifts import move_rows, read_across, write_across
from tenantguard_django.orm.marks import CONTRIB_MODELS, owned, owned_through, shared, wide
from tenantguard_django.orm.problems import Problem, check_models, unclassified_models
from tenantguard_django.orm.vouching import vouch_for

__all__ = [
    "CONTRIB_MODELS",
    "Problem",
    "allow_raw",
    "check_models",
    "classify",
    "is_protected",
    "move_rows",
    "owned",
    "owned_through",
    "protect",
    "read_across",
    "read_tenants",
    "shared",
    "system",
    "unclassified_models",
    "vouch_for",
    "wide",
    "write_across",
]
