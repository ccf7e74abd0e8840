# make demo   a first search, about three minutes after the installation
# make test   every test; make test-fast leaves the slow ones out, make test-lowest runs those with the lowest versions allowed
# make docs   the pages as a site, in build/docs; any warning is an error

PYTHON ?= python3
VENV ?= .venv
TORCH ?= 2.13.0
# Where torch comes from, such as https://download.pytorch.org/whl/cpu; empty for pip's own index.
TORCH_INDEX ?=
LOWEST_TORCH ?= 2.8.0
WORKERS ?= 2
BIN = $(VENV)/bin
DEMO = runs/demo

.PHONY: demo test test-fast test-lowest docs build clean

# torch comes first and at a fixed version: every later requirement is then satisfied by what is there.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit("archtuna needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch-$(TORCH): $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==$(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch-$(TORCH) pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[onnx]'
	@touch $@

$(VENV)/.test: $(VENV)/.torch-$(TORCH) pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.torch-$(TORCH) pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/archtuna search examples/digits.yaml --data digits --out $(DEMO) --time 2m
	$(BIN)/archtuna export "$$($(BIN)/archtuna front $(DEMO) --knee)" $(DEMO)/knee.onnx
	@echo
	@echo "The model is $(DEMO)/knee.onnx. What to try next:"
	@echo "  $(BIN)/archtuna front $(DEMO)                                  the front again"
	@echo "  $(BIN)/archtuna show $(DEMO) NUMBER                            one network of it, row by row"
	@echo "  $(BIN)/archtuna train $(DEMO) NUMBER --seeds 3                 trained in full, reported on unseen pictures"
	@echo "  $(BIN)/archtuna init search.yaml --data YOUR_PICTURES          a search file for pictures of yours"

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# In a virtual environment of its own, without what only needs a current version (Ray, object stores, linters).
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check torch==$(LOWEST_TORCH)
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[onnx,postgresql,mysql,grpc]' \
		pytest pytest-xdist hypothesis jsonschema
	.venv-lowest/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" \
		--ignore tests/test_stores.py --ignore tests/test_cluster.py

build: $(VENV)/.test
	$(BIN)/python -m hatchling build

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -c docs -b html -n -W --keep-going -q . build/docs
	@echo "The site is build/docs/index.html."

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
