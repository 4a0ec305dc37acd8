# The same verbs for people and for CI. PYTHON may name another interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
DEMO := env GROK2API_DATA_DIR=data/demo
LOCKS := base dev postgres mysql redis otel

.DEFAULT_GOAL := help
.PHONY: help demo run test lint bench lock services clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv

.venv/.base: requirements/base.txt | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.venv/.dev: requirements/dev.txt | .venv/.base
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.venv/.services: $(LOCKS:%=requirements/%.txt) | .venv/.dev
	for name in postgres mysql redis otel; do \
	  $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$$name.txt || exit 1; \
	done
	@touch $@

demo: .venv/.base ## try it: simulated upstream, gateway, key and a curl that works
	@exec $(DEMO) $(BIN)/python manage.py demo

run: .venv/.base ## the gateway against the real upstreams, data in ./data
	@exec $(BIN)/python manage.py serve

test: .venv/.dev ## the whole suite
	$(BIN)/python -m pytest

lint: .venv/.dev ## style, types, import contracts, migrations, deployment checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy grok2api pool gateway register tests manage.py
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	GROK2API_HTTPS=1 $(BIN)/python manage.py check --deploy --fail-level WARNING

bench: .venv/.dev ## CPU per request beside the floor, one table
	$(BIN)/python -m bench.run

services: .venv/.services ## drivers for PostgreSQL, MariaDB and Redis (needs their headers)

# Extras are resolved together first, so that every lock file agrees on every version.
lock: .venv/bin/python ## resolve the pinned ranges again and write requirements/
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header \
	  --no-annotate --no-emit-index-url $(UPGRADE) pyproject.toml -o .venv/all.txt
	for name in $(LOCKS); do \
	  extra=$$( [ $$name = base ] || echo "--extra $$name" ); \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 $$extra --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url -c .venv/all.txt pyproject.toml \
	    -o requirements/$$name.txt || exit 1; \
	done

clean: ## remove what was made here, except ./data
	rm -rf .venv build dist staticfiles .mypy_cache .ruff_cache .pytest_cache .hypothesis
