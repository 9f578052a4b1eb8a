from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "tests.django.web"
    label = "web"

    def ready(self) -> None:
        from tenantguard_django.orm import classify

        from tests.django.login import TENANTGUARD

        # For tests of the barrier, which have settings of their own.
        classify({"admin.LogEntry": TENANTGUARD["MODELS"]["admin.LogEntry"]})
