# make book   the site, into _build/html          make test       lint, unit tests, every notebook
# make notebooks   regenerate the .ipynb files    make benchmark  time the Gram engine against its peers
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
unexport NTK_COURSE_DATA MPLBACKEND

.PHONY: book test lint unit nbval notebooks benchmark clean

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

book: $(READY)
	NTK_COURSE_STATIC=1 PYTHONPATH=tools $(BIN)/jupyter-book build . -W --keep-going

test: lint unit nbval

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/notebooks.py --check

unit: $(READY)
	$(BIN)/python -m pytest

nbval: $(READY)
	$(BIN)/python -m pytest --nbval-lax -p no:cacheprovider book exercises solutions

notebooks: $(READY)
	$(BIN)/python tools/notebooks.py

benchmark: $(READY)
	$(BIN)/python benchmarks/gram.py

clean:
	rm -rf _build build dist *.egg-info
