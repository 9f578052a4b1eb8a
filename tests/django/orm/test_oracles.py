"""No error tells of another tenant's row: criteria that can fail are evaluated on the tenant's own rows alone.

Each criterion here fails on a row of b's, and on none of a's. Tables without a tenant key of their own (children) are
what databases are likeliest to filter late.
"""

from typing import Any

import pytest
from django.db import models
from django.db.models import (
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    OuterRef,
    Q,
    Subquery,
    Sum,
    TextField,
    Value,
    When,
)
from django.db.models.functions import Cast

from tests.django.orm.models import Comment, Document, Folder
from tests.django.orm.reads import BS, _division
from tests.django.orm.world import Attack, verdict

D, C, F_ = Document.objects, Comment.objects, Folder.objects


def _for_b(of_b: str, of_a: str, **kwargs: Any) -> Any:
    """One text for b's comments, another for a's."""
    return Case(When(text__startswith="B-", then=Value(of_b)), default=Value(of_a), output_field=TextField(**kwargs))


def _json() -> Any:
    text = _for_b("((", "{}")
    return ExpressionWrapper(Cast(text, models.JSONField()), output_field=models.JSONField())


def _related(rows: Any, name: str, **relation: str) -> Any:
    [(alias, path)] = relation.items()
    condition = Q(**{f"{path}__pk__lt": _division(F(f"{path}__pk"))})
    return rows.annotate(**{alias: FilteredRelation(path, condition=condition)})


SCOPED: dict[str, tuple[Attack, Any]] = {
    "malformed pattern": (lambda: C.annotate(x=Value("abc")).filter(x__regex=_for_b("((", "a")).count(), 6),
    "malformed pattern, without regard to case": (
        lambda: C.annotate(x=Value("abc")).filter(x__iregex=_for_b("((", "A")).count(),
        6,
    ),
    "malformed JSON": (lambda: C.annotate(x=_json()).filter(x__has_key="a").count(), 0),
    "malformed JSON, contained key": (lambda: C.annotate(x=_json()).filter(x__a=1).count(), 0),
    "outer reference in a subquery's criteria": (
        lambda: C.filter(Exists(D.filter(pages__lt=_division(OuterRef("pk"))))).count(),
        6,
    ),
    "outer reference in a subquery's column": (
        lambda: C.filter(pk__lt=Subquery(D.annotate(z=_division(OuterRef("pk"))).values("z")[:1])).count(),
        6,
    ),
    "outer reference two deep": (
        lambda: C.filter(Exists(D.filter(Exists(F_.filter(pk__lt=_division(OuterRef(OuterRef("pk")))))))).count(),
        6,
    ),
    "outer reference in an update": (
        lambda: C.filter(Exists(D.filter(pages__lt=_division(OuterRef("pk"))))).update(text="x"),
        6,
    ),
    "several rows for one value": (
        lambda: C.filter(pk__gte=Subquery(F_.filter(pk__lt=OuterRef("pk") - BS + 3).values("pk"))).count(),
        0,
    ),
    "several rows for one value, in a list": (
        lambda: C.filter(pk__in=[Subquery(F_.filter(pk__lt=OuterRef("pk") - BS + 3).values("pk"))]).count(),
        0,
    ),
    "filtered relation to a child by its owner": (
        lambda: _related(D, "c", c="comments").filter(Q(c=None) | Q(c__text__contains="")).count(),
        7,
    ),
    "filtered relation to a child, aggregated": (
        lambda: _related(D, "c", c="comments").annotate(n=Count("c")).aggregate(x=Sum("n"))["x"],
        6,
    ),
    "filtered relation to a child by another key": (
        lambda: _related(C, "r", r="replies").filter(Q(r=None) | Q(r__text__contains="")).count(),
        6,
    ),
}


@pytest.mark.parametrize("name", SCOPED)
def test_an_error_on_another_tenants_row_is_not_met(world: str, name: str) -> None:
    attack, own = SCOPED[name]
    assert verdict(world, attack, own=own) == "scoped"
