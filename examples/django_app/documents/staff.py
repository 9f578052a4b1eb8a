"""Which companies a member of the staff may work in, for the admin."""

from typing import Any

from examples.django_app.documents.models import Membership


def companies_of(user: Any) -> list[str]:
    return list(Membership.objects.filter(user=user).order_by("company").values_list("company", flat=True))
