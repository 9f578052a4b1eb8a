"""The app of the barrier's tests."""

from django.apps import AppConfig


class OrmTestsConfig(AppConfig):
    name = "tests.django.orm"
    label = "ormtests"

    def ready(self) -> None:
        from tenantguard_django.orm import CONTRIB_MODELS, classify, shared

        users = shared("users: the project's own staff")
        classify({**CONTRIB_MODELS, "auth.User": users, "auth.Group": users})
