# make demo        align the toy model and write runs/demo/report.html
# make test        the tests that give an answer within minutes (no network, no GPU)
# make test-rest   the others: several processes, kills and resumes, whole trainings, and soak-short
# make soak-short  kills, hostile images and configs, damaged files, two runs at once: a table of tries and faults
# Each installs what it needs into .venv first; a second run starts at once.

PY := .venv/bin/python
STAMP := .venv/.installed
FIND_PYTHON := for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done

.PHONY: install test test-rest test-slow soak-short demo lint format clean
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): pyproject.toml
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
		python=$$($(FIND_PYTHON)); \
		if [ -z "$$python" ]; then \
			echo "make: got $$(python3 --version 2>&1); expected Python 3.11 or newer;" \
				"install one and run make PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
		echo "$$python -m venv .venv"; \
		"$$python" -m venv --clear .venv || { \
			echo "make: $$python cannot create .venv; install its venv module (Debian: python3-venv)" >&2; exit 1; }; \
	fi
	$(PY) -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

# Small tensors gain nothing from many threads: the tests run in WORKERS processes of one thread each, and a file
# stays in one process, so that what its tests share is made once.
WORKERS ?= 2
test test-rest test-slow: export OMP_NUM_THREADS ?= 1
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile --durations 10

test: install
	$(PYTEST) -m 'not rest and not slow and not weights'

test-rest: install
	$(PYTEST) -m 'rest and not slow and not weights'
	$(SOAK)

# BUDGET is in seconds for each kind; another SEED makes other tries: make soak-short SEED=7 BUDGET=1800
SEED ?= 0
BUDGET ?= 45
SOAK := $(PY) -m tests.soak --seed $(SEED) --budget $(BUDGET)

soak-short: install
	$(SOAK)

test-slow: install
	$(PY) -m pytest -m slow

demo: install
	$(PY) -m t2ialign demo --output runs/demo

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: install
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
