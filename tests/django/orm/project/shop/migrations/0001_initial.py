"""The tables, and a row that a function makes."""

import django.db.models.deletion
from django.db import migrations, models


def first_tag(apps, schema_editor):
    apps.get_model("shop", "Tag").objects.using(schema_editor.connection.alias).create(name="first")


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Tag",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=50, unique=True)),
            ],
        ),
        migrations.CreateModel(
            "Product",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=50)),
                ("price", models.DecimalField(decimal_places=2, default=0, max_digits=8)),
                (
                    "similar",
                    models.ForeignKey(
                        blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, to="shop.product"
                    ),
                ),
                ("tags", models.ManyToManyField(related_name="products", to="shop.tag")),
            ],
        ),
        migrations.RunPython(first_tag, migrations.RunPython.noop),
        migrations.RunSQL("UPDATE shop_tag SET name = 'first tag'", migrations.RunSQL.noop),
    ]
