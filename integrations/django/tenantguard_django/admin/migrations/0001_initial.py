"""The table of `tenantguard_django.admin.models.LogEntryTenant`."""

from django.db import migrations, models

import tenantguard_django.models


class Migration(migrations.Migration):
    """Create it."""

    initial = True

    dependencies = [("admin", "0003_logentry_add_action_flag_choices")]

    operations = [
        migrations.CreateModel(
            name="LogEntryTenant",
            fields=[
                (
                    "tenant_id",
                    models.CharField(
                        db_index=True,
                        default=tenantguard_django.models.bound_tenant_id,
                        editable=False,
                        max_length=128,
                    ),
                ),
                (
                    "entry",
                    models.OneToOneField(
                        on_delete=models.CASCADE,
                        primary_key=True,
                        related_name="tenantguard",
                        serialize=False,
                        to="admin.logentry",
                    ),
                ),
            ],
            options={
                "verbose_name": "tenant of a log entry",
                "verbose_name_plural": "tenants of log entries",
            },
        ),
    ]
