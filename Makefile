# Every command works on a fresh clone: it needs only Python 3.11 or newer with pip.
# uv is brought by pip into .tools/, the environment into .venv/, both from hashed locks. The newest Django asks for a
# newer Python than 3.11, and has an environment of its own, .venv-newest/: its Python is one of the machine's or, where
# there is none, Debian's; NEWER_PYTHON names another (a path, or "debian").

PYTHON ?= python3
UV     := .tools/bin/uv
BIN    := .venv/bin
STAMP  := .venv/.installed
NEWEST := .venv-newest
NEWER_PYTHON ?=
MEMBERS := $(patsubst %/pyproject.toml,%,$(wildcard integrations/*/pyproject.toml))

.DEFAULT_GOAL := help
.PHONY: help demo demo-django test test-django-newest lint format types imports check bench docs lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

demo: $(STAMP) ## start an issuer, the example app, two services behind it and a worker, and play attempts against them
	@$(BIN)/python -m examples.fastapi_app.demo

demo-django: $(STAMP) ## play the same attempts against the Django example, and some at its admin
	@$(BIN)/python -m examples.django_app.demo

test: $(STAMP) ## run every test, and those of Django with its newer releases as well
	@$(MAKE) --no-print-directory test-django-newest; newest=$$?; $(BIN)/python -m pytest -n auto --dist worksteal && exit $$newest

test-django-newest: $(NEWEST)/.installed ## run the tests of Django with its newest release, and some with the one before
	$(NEWEST)/bin/python -m pytest -n auto --dist worksteal tests/django \
		tests/docs/test_snippets.py::test_the_project_of_the_page_runs \
		tests/e2e/test_django_demo.py::test_the_project_passes_its_own_checks_and_has_all_its_migrations \
		-k "not test_projects or (green and psycopg2)"
	PYTHONPATH=$(NEWEST)/django-6.0 $(NEWEST)/bin/python -m pytest tests/django/orm -k "not postgresql and not test_projects and not test_rls"

lint: $(STAMP) ## ruff: lint and format check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## ruff: mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

imports: $(STAMP) ## import-linter: imports point down only
	$(BIN)/lint-imports

check: lint types imports test ## all that CI runs

bench: $(STAMP) ## ratios against bare Starlette, raw verification and handwritten filters
	$(BIN)/python -m benchmarks

docs: $(STAMP) ## write the reference pages from the docstrings
	$(BIN)/python docs/make_reference.py

lock: $(UV) ## renew the hashed locks
	$(UV) export --quiet --no-header --no-emit-workspace --all-packages --all-extras --all-groups --output-file requirements/dev.txt >/dev/null
	$(UV) export --quiet --no-header --no-emit-workspace --frozen --package tenantguard --extra celery --extra django --extra fastapi --no-default-groups --group django-newest --output-file requirements/django-newest.txt >/dev/null
	rm -f uv.lock
	printf 'django>=6.0,<6.1\n' | $(UV) pip compile --quiet --no-header --no-annotate --no-deps --generate-hashes --python-version 3.12 - > requirements/django-6.0.txt
	printf 'uv\n' | $(UV) pip compile --quiet --no-header --no-annotate --universal --generate-hashes --python-version 3.11 - > requirements/bootstrap.txt

clean: ## remove what these commands made
	rm -rf .venv $(NEWEST) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(UV): requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tenantguard needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-compile --upgrade --target .tools --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(STAMP): $(UV) requirements/dev.txt pyproject.toml $(addsuffix /pyproject.toml,$(MEMBERS))
	@test -x $(BIN)/python || $(UV) venv --quiet --no-project --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . $(addprefix --editable ,$(MEMBERS))
	@touch $@

$(NEWEST)/.installed: $(STAMP) requirements/django-newest.txt requirements/django-6.0.txt
	@test -x $(NEWEST)/bin/python || { python="$$($(BIN)/python -m tests.support.newer_python $(NEWER_PYTHON))" && $(UV) venv --quiet --no-project --python "$$python" $(NEWEST); }
	$(UV) pip sync --quiet --python $(NEWEST)/bin/python --require-hashes requirements/django-newest.txt
	$(UV) pip install --quiet --python $(NEWEST)/bin/python --no-deps --no-build-isolation --editable . $(addprefix --editable integrations/,celery django fastapi)
	$(UV) pip install --quiet --python $(NEWEST)/bin/python --no-deps --target $(NEWEST)/django-6.0 --require-hashes -r requirements/django-6.0.txt
	@touch $@
