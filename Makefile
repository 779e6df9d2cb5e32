# Torg. Needs Python 3.11 or newer and make; everything else comes into .venv.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## a purchase from order to goods, then the shop stays open (ONCE=1: exit after it; PORT=8080)
	@exec $(BIN)/python -m app.cli demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

WORKERS ?= 2  # each with servers of its own; 0: one process, for --pdb and -s

test: $(READY) ## the whole suite on a real Postgres, a real Redis and a real cluster (ARGS="-k stock" for a part)
	@$(BIN)/python -m pytest $(if $(filter-out 0,$(WORKERS)),-n $(WORKERS) --dist loadfile --no-loadscope-reorder) $(ARGS)

TORG_TEST_REDIS ?= redis-server

test-redis: $(READY) ## what is about Redis alone, on Redis 7 (TORG_TEST_REDIS=path; else redis-server of PATH)
	@TORG_TEST_REDIS="$(TORG_TEST_REDIS)" $(BIN)/python -m pytest tests/lua tests/infra/test_pipe.py tests/infra/test_pipe_outages.py tests/infra/test_lua.py $(ARGS)

check: $(READY) ## format, lint, strict types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports

bench: $(READY) ## one benchmark: NAME=webhook, settle, status, jobs, conversation, chat, lua, limits, idempotency, catalog or cache
	@$(BIN)/python -m bench $(NAME)

SECONDS ?= 600

chaos: $(READY) ## a storm of disasters, and what of the promises it left: NAME=jobs (SECONDS=60 for a short one)
	@$(BIN)/python -m chaos $(NAME) $(SECONDS)

web: $(READY) ## serve HTTP on TORG_* (embedded servers when none are named)
	@exec $(BIN)/python -m app.cli web

worker: $(READY) ## do the jobs
	@exec $(BIN)/python -m app.cli worker

migrate: $(READY) ## bring the database up to this release
	@$(BIN)/python -m app.cli migrate

docs: $(READY) ## rewrite what is generated: .env.example, sql/schema.sql, docs/errors.md, docs/keys.md
	@$(BIN)/python -m tests.house.generate

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

lock: ## rewrite both requirements files from pyproject.toml (needs uv)
	$(LOCK) --extra embedded --extra dev pyproject.toml -o requirements-dev.txt
	$(LOCK) --constraint requirements-dev.txt pyproject.toml -o requirements.txt

clean: ## remove .venv, caches and the demo's data
	@rm -rf .venv .torg .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Torg needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" -m app.cli "$$@"\n' "$(CURDIR)" "$(CURDIR)/$(BIN)/python" > $(BIN)/torg
	@chmod +x $(BIN)/torg
	@touch $@

.PHONY: help demo test test-redis check bench chaos web worker migrate docs lock clean
