"""What is wrong with the installed models, in the words of Django's checks."""

from typing import Any, NamedTuple

from tenantguard.errors import ConfigurationError, UnclassifiedTable
from tenantguard_django.orm.classify import installed_tables, kind_of_model

__all__ = ["Problem", "check_models", "unclassified_models"]


class Problem(NamedTuple):
    """What is wrong with a model, in the words of Django's checks.

    Args:
        id: for example ``tenantguard.E101``.
        message: what is wrong.
        hint: how to mend it.
        model: the model.
    """

    id: str
    message: str
    hint: str | None
    model: Any


def check_models() -> list[Problem]:
    """Return what is wrong with the installed models, for Django's system checks and for tests."""
    problems: list[Problem] = []
    for models in installed_tables().values():
        for model in models:
            if model._meta.auto_created:
                continue
            try:
                kind = kind_of_model(model)
            except UnclassifiedTable as error:
                problems.append(Problem("tenantguard.E101", error.message, error.mend, model))
            except ConfigurationError as error:
                problems.append(Problem("tenantguard.E102", error.message, error.mend, model))
            else:
                if kind.unsound is not None:
                    hint = "Vouch for the field's class: vouch_for(FieldClass, reason=...)."
                    message = f"The field {kind.unsound} writes SQL of its own."
                    problems.append(Problem("tenantguard.E103", message, hint, model))
    return problems


def unclassified_models() -> list[str]:
    """Return the labels of the installed models that are unclassified."""
    return [problem.model._meta.label for problem in check_models() if problem.id == "tenantguard.E101"]
