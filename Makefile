# Every target sets up what it needs in .venv; nothing outside this folder is touched.
PYTHON ?= python3
ECOM_HOME ?= $(CURDIR)/.ecom
WORKERS ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder
export ECOM_HOME
export HF_HUB_OFFLINE = 1

.PHONY: run test ui check soak screenshots clean

run: .venv/installed
	.venv/bin/ecom run $(ARGS)

test: .venv/installed-test
	.venv/bin/python -m pytest $(WORKERS) $(ARGS)

ui: .venv/installed
	.venv/bin/ecom ui

check: .venv/installed-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest $(WORKERS) $(ARGS)

# real runs are killed, harmed and finished; takes hours, needs Linux and a C compiler, and writes docs/faults.md
soak: .venv/installed-test
	.venv/bin/python benchmarks/faults.py $(ARGS)

screenshots: .venv/installed
	.venv/bin/python docs/take_screenshots.py

# torch first and by constraint: any other version brings gigabytes of GPU libraries
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv
