# make book   the site, into _build/html          make test       lint, unit tests, every notebook
# make notebooks   regenerate the .ipynb files    make benchmark  time the engine against its peers
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CACHE := _build/.jupyter_cache/global.db
unexport NTK_COURSE_DATA MPLBACKEND

.PHONY: book test lint unit nbval notebooks benchmark clean

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# The caches look at a page's own text only; here they also go when the package or a stored result is newer.
book: $(READY)
	if [ -n "$$(find ntk_course book/results -name '*.py' -newer $(CACHE) -o -name '*.json' -newer $(CACHE) 2>/dev/null)" ]; then rm -rf _build/.jupyter_cache _build/.doctrees; fi
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
	$(BIN)/python benchmarks/cost.py

clean:
	rm -rf _build build dist *.egg-info
