"""The base of models that belong to tenants."""

from typing import Any, ClassVar

from django.db import models

from tenantguard.binding import bound_id, current_binding
from tenantguard.identity import MAX_TENANT_ID_LENGTH
from tenantguard_django.orm.marks import Mark, owned

__all__ = ["TenantModel", "bound_tenant_id"]


def bound_tenant_id() -> str:
    """Return the bound tenant's id, or an empty text where none is bound: the default of `TenantModel.tenant_id`.

    It never raises, since models are made in many places; a row that is written without a tenant is refused.
    """
    return bound_id(current_binding(), "tenant") or ""


class TenantModel(models.Model):
    """A model each of whose rows belongs to one tenant: ``class Document(TenantModel)``.

    It adds ``tenant_id``, which the barrier fills and holds: what is bound is written, anything else is refused.
    """

    _tenantguard_mark: ClassVar[Mark] = owned("tenant_id")

    tenant_id: Any = models.CharField(
        max_length=MAX_TENANT_ID_LENGTH, db_index=True, editable=False, default=bound_tenant_id
    )

    class Meta:
        """Abstract: each model has a table of its own."""

        abstract = True
