"""The base of models that belong to tenants."""

from typing import Any, ClassVar

from django.db import models

from tenantguard.binding import bound_id, current_binding, raw_binding
from tenantguard.identity import MAX_TENANT_ID_LENGTH
from tenantguard_django.orm.marks import Mark, owned

__all__ = ["TenantModel", "bound_tenant_id"]


def bound_tenant_id() -> str:
    """Return the bound tenant's id, or an empty text where none is bound: the default of `TenantModel.tenant_id`.

    It never raises, since models are made in many places; a row that is written without a tenant is refused.
    """
    binding = raw_binding()
    if binding is None or binding.permits:
        binding = current_binding()
    return bound_id(binding, "tenant") or ""


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

    def validate_constraints(self, exclude: Any = None) -> None:
        """Look for rows that break a constraint, in the tenant; also where a form leaves the tenant key out."""
        super().validate_constraints(exclude=_with_key(exclude))

    def _get_unique_checks(self, exclude: Any = None, include_meta_constraints: bool = False) -> Any:
        checks: Any = super()._get_unique_checks  # type: ignore[misc]
        return checks(exclude=_with_key(exclude), include_meta_constraints=include_meta_constraints)


def _with_key(exclude: Any) -> Any:
    return {name for name in exclude if name != "tenant_id"} if exclude else exclude
