"""The project's own tests."""

import contextlib
import io

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import CASCADE, CharField, Count, F, ForeignKey, Func, Model, Window
from django.db.models.functions import RowNumber
from django.test import LiveServerTestCase, TestCase, TransactionTestCase
from django.test.utils import isolate_apps

from shop.models import Product, Tag


class Shout(Func):
    """An expression of the project's own, with SQL of its own."""

    output_field = CharField()

    def as_sql(self, compiler, connection):
        sql, params = compiler.compile(self.source_expressions[0])
        return f"upper({sql}) || '!'", params


class Rows(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.product = Product.objects.create(name="bread")
        cls.product.tags.add(Tag.objects.create(name="fresh"))

    def test_queries_are_counted_as_ever(self):
        with self.assertNumQueries(1):
            list(Product.objects.select_related("similar"))
        with self.assertNumQueries(2):
            list(Product.objects.prefetch_related("tags"))
        with self.assertNumQueries(1):
            Product.objects.create(name="roll", similar=self.product)
        with self.assertNumQueries(4), transaction.atomic():
            Product.objects.bulk_create([Product(name="1"), Product(name="2")])
            self.product.save()

    def test_rows_of_migrations_are_there(self):
        assert Tag.objects.filter(name="first tag").exists()

    def test_sql_of_its_own(self):
        assert Product.objects.annotate(loud=Shout("name")).get().loud == "BREAD!"
        assert Product.objects.raw("SELECT * FROM shop_product")[0].name == "bread"
        assert (
            Product.objects.extra(where=["length(shop_product.name) = 5"], tables=["shop_tag"]).distinct().count() == 1
        )
        with connection.cursor() as cursor:
            cursor.execute("UPDATE shop_product SET name = %s", ["roll"])
            assert "shop_tag" in connection.introspection.table_names(cursor)
            assert connection.introspection.get_constraints(cursor, "shop_tag")
        with contextlib.closing(connection.connection.cursor()) as cursor:
            cursor.execute("SELECT name FROM shop_product")
            assert cursor.fetchone() == ("roll",)

    def test_expressions(self):
        assert Product.objects.annotate(n=Count("tags")).get().n == 1
        assert Product.objects.annotate(n=Window(RowNumber())).get().n == 1
        Product.objects.update(price=F("price") + 1)

        Product.objects.all().delete()
        assert Product.objects.in_bulk() == {}

    def test_the_admin(self):
        user = User.objects.create_superuser("root", "root@example.com", "secret")
        self.client.force_login(user)
        answer = self.client.post(
            "/admin/shop/product/add/", {"name": "milk", "price": "1", "tags": [Tag.objects.first().pk]}, follow=True
        )
        self.assertContains(answer, "was added successfully")
        self.assertContains(self.client.get("/admin/"), "milk")
        assert self.client.post("/admin/login/", {"username": "x", "password": "y"}).status_code == 200

    def test_hooks_on_commit(self):
        with self.captureOnCommitCallbacks(execute=True) as hooks:
            transaction.on_commit(lambda: Product.objects.count())
        assert len(hooks) == 1


class Transactions(TransactionTestCase):
    def test_rows_are_committed_and_flushed(self):
        assert Product.objects.count() == 0
        with transaction.atomic():
            Product.objects.create(name="bread")
        assert Product.objects.count() == 1

    def test_they_are_flushed_again(self):
        assert Product.objects.count() == 0
        Product.objects.create(name="bread")

    def test_locks(self):
        with transaction.atomic():
            assert list(Product.objects.select_for_update()) == []

    def test_fixtures(self):
        Product.objects.create(name="bread")
        out = io.StringIO()
        call_command("dumpdata", "shop.product", stdout=out)
        assert "bread" in out.getvalue()
        call_command("showmigrations", stdout=out)
        call_command("makemigrations", check=True, dry_run=True, stdout=out)
        call_command("check", stdout=out)

    def test_the_driver_is_guarded(self):
        from tenantguard import bind, service_identity
        from tenantguard.errors import StatementRefused

        Product.objects.create(name="bread")
        with bind(service_identity("test", tenant="a")):
            assert [one.name for one in Product.objects.iterator()] == ["bread"]
            for cursor in (connection.cursor(), connection.cursor().cursor, connection.connection.cursor()):
                with self.assertRaises(StatementRefused):  # noqa: PT027 - the project has no pytest
                    cursor.execute("SELECT name FROM shop_product")
                with self.assertRaises(StatementRefused):  # noqa: PT027 - the project has no pytest
                    cursor.executemany("SELECT name FROM shop_product", [()])
                cursor.close()

    def test_the_connection_can_be_looked_at(self):
        assert connection.features.supports_transactions
        assert Product.objects.count() == 0
        assert connection.is_usable()
        connection.close()
        assert Product.objects.count() == 0


class Migrating(TransactionTestCase):
    def test_the_state_of_migrations_is_asked_for(self):
        executor = MigrationExecutor(connection)
        assert executor.migration_plan(executor.loader.graph.leaf_nodes()) == []
        assert MigrationRecorder(connection).migration_qs.filter(app="shop").exists()

    def test_a_migration_is_taken_back_and_made_again(self):
        executor = MigrationExecutor(connection)
        executor.migrate([("shop", None)])
        assert "shop_product" not in connection.introspection.table_names()
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())
        assert Product.objects.count() == 0

    @isolate_apps("shop")
    def test_a_model_of_the_tests_own(self):
        class Basket(Model):
            name = CharField(max_length=50)

            class Meta:
                app_label = "shop"

        class Item(Model):
            basket = ForeignKey(Basket, CASCADE, related_name="items")

            class Meta:
                app_label = "shop"

        with connection.schema_editor() as editor:
            editor.create_model(Basket)
            editor.create_model(Item)
        try:
            basket = Basket.objects.create(name="full")
            Item.objects.bulk_create([Item(basket=basket), Item(basket=basket)])
            assert Basket.objects.annotate(size=Count("items")).get().size == 2
            assert Item.objects.select_related("basket").first().basket.name == "full"
            basket.name = "empty"
            basket.save()
            assert Basket.objects.update(name=Shout(F("name"))) == 1
            assert list(Basket.objects.values_list("name", flat=True)) == ["EMPTY!"]
            assert basket.delete()[0] == 3
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Item)
                editor.delete_model(Basket)


class Serving(LiveServerTestCase):
    def test_it_answers(self):
        from urllib.request import urlopen

        with urlopen(f"{self.live_server_url}/admin/login/") as answer:
            assert answer.status == 200
