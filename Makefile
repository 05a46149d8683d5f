# Each target works alone on a fresh machine: the virtual environment is set up on first use and when
# pyproject.toml or constraints.txt change.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin

# The paper's own data, where they lie beside the checkout; without them the suite draws the same designs itself.
ifeq ($(origin IDENTKIT_DATA),undefined)
ifneq ($(wildcard ../shared/data/.),)
export IDENTKIT_DATA := $(abspath ../shared/data)
endif
endif

export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help verify test theory soundness fuzz format pins clean

help:
	@echo "make verify   set up .venv, then confirm the theorem on the classical models (results/classical/report.html)"
	@echo "make test     set up .venv, then every check: ruff, pyright, import-linter, doctests, pytest"
	@echo "make theory   check every statement of theory/ and print what was checked, and how (a minute)"
	@echo "make soundness  2,000 random models and 400 random decoders with a planted answer (half an hour; part of it is in make test)"
	@echo "make fuzz     10,000 random and mutated texts: an answer or one clear message each"
	@echo "make format   let ruff format the code and mend what it can"
	@echo "make pins     write the versions installed in .venv into constraints.txt"
	@echo "make clean    remove .venv, caches and results"

verify: $(VENV)/.runtime
	$(BIN)/identkit verify --suite classical --out results/classical

test: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)

theory: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m theory

soundness: $(VENV)/.dev
	$(BIN)/python -m experiments.soundness
	$(BIN)/python -m experiments.soundness_numeric

fuzz: $(VENV)/.dev
	$(BIN)/python -m experiments.fuzz

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The pins need Python 3.11; on 3.10 pip chooses within pyproject.toml. torch keeps no local label (+cpu), so
# that the pin fits whichever build the machine's index offers.
pins: $(VENV)/.dev
	@$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/frozen
	@{ echo "# Written by \`make pins\`: the exact versions everything is tested with. Install with -c constraints.txt."; \
	   sed -E 's/\+[a-z0-9.]+$$//; /^torch==/!s/$$/ ; python_version >= "3.11"/' $(VENV)/frozen; } > constraints.txt

clean:
	rm -rf $(VENV) results dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" \
	  || { echo "identkit needs Python 3.10 or newer as $(PYTHON); name another one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null \
	  || { echo "$(PYTHON) cannot make virtual environments (ensurepip is missing); on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing identkit with PyTorch into $(VENV): a minute or two the first time"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing identkit with PyTorch and the development tools into $(VENV): a minute or two the first time"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.runtime
