"""Models whose foreign keys the database follows by itself as rows are deleted: Django 6.1 and newer."""

from django.db import models
from tenantguard_django.models import TenantModel
from tenantguard_django.orm import owned, owned_through, shared


@shared("regions: reference data")
class Region(models.Model):
    name = models.CharField(max_length=200)


@shared("places: reference data")
class Place(models.Model):
    region = models.ForeignKey(Region, on_delete=models.DB_CASCADE)


@shared("colours: reference data")
class Colour(models.Model):
    name = models.CharField(max_length=200)


class Branch(TenantModel):
    """A tenant's rows that point to shared ones, at one and at two removes."""

    place = models.ForeignKey(Place, null=True, on_delete=models.DB_CASCADE)
    colour = models.ForeignKey(Colour, null=True, on_delete=models.DB_SET_NULL)


@owned_through("branch")
class Desk(models.Model):
    branch = models.ForeignKey(Branch, on_delete=models.DB_CASCADE)


class Door(TenantModel):
    branch = models.ForeignKey(Branch, null=True, on_delete=models.DB_SET_NULL)


class Level(TenantModel):
    name = models.CharField(max_length=200)


class Room(TenantModel):
    level = models.ForeignKey(Level, db_default=900_000, on_delete=models.DB_SET_DEFAULT)


@owned("id")
class Firm(models.Model):
    id = models.CharField(max_length=128, primary_key=True)


@owned("firm", global_rows=True)
class Poster(models.Model):
    firm = models.ForeignKey(Firm, null=True, on_delete=models.DB_SET_NULL)
