# make book   the site, into _build/html          make test       lint, unit tests, every notebook
# make quick  lint, and unit tests without browser and notebooks: a few minutes
# make notebooks   regenerate the .ipynb files    make exercises  only those of the exercises
# make benchmark   what kernels cost, and peers   make stick      all that a class needs without a network
# make assignments   a course directory for nbgrader, dist/assignments
# make pdf       the whole book as one PDF, _build/book.pdf; it needs a Chromium
# make repo URL=https://github.com/OWNER/NAME     move to another address
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CACHE := _build/.jupyter_cache/global.db
TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
PAGES_AS := NTK_COURSE_STATIC=1 NTK_COURSE_STRICT=1 PYTHONPATH=tools
JCACHE := JUPYTERCACHE=$(dir $(CACHE)) OMP_NUM_THREADS=1 $(BIN)/jcache
unexport NTK_COURSE_DATA MPLBACKEND

.PHONY: book pdf test quick lint unit nbval notebooks everywhere exercises assignments repo stick benchmark clean

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# The caches look at a page's own text only; here they also go when the package or a stored result is newer.
# Jupyter Book would run the pages one after another: they are run before it, as many at once as there are cores, into its
# own cache. One that fails is not kept, so that Jupyter Book runs it again and reports it.
book: $(READY)
	if [ -n "$$(find ntk_course book/results -name '*.py' -newer $(CACHE) -o -name '*.json' -newer $(CACHE) 2>/dev/null)" ]; then rm -rf _build/.jupyter_cache _build/.doctrees; fi
	mkdir -p $(dir $(CACHE))
	$(JCACHE) notebook add --reader myst_nb_md $$(grep --files-with-matches '^kernelspec:' book/*.md solutions/*.md)
	$(PAGES_AS) $(JCACHE) project execute --executor local-parallel --timeout 300
	$(PAGES_AS) $(BIN)/jupyter-book build . -W --keep-going

pdf: book
	$(PAGES_AS) $(BIN)/jupyter-book build . --builder custom --custom-builder singlehtml
	cp _build/singlehtml/book/index.html _build/singlehtml/whole.html  # its styles and pictures are beside it there
	$(BIN)/python tools/pdf.py _build/singlehtml/whole.html _build/book.pdf

test: lint unit nbval

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/nbqa mypy book exercises solutions
	$(BIN)/mypy
	$(BIN)/python tools/notebooks.py --check

unit: $(READY)
	$(TWO) --dist worksteal
	NTK_COURSE_TEST_DEVICE=far $(TWO) --dist worksteal -m gpu tests/test_gpu.py

quick: lint
	$(TWO) --dist worksteal -m "not browser and not slow"

nbval: $(READY)
	NTK_COURSE_STRICT=1 $(TWO) --dist loadfile --nbval-lax -p no:cacheprovider book exercises solutions

# Every notebook from an empty folder, in an environment that has the wheel and what Colab has. About ten minutes.
everywhere: $(READY)
	NTK_COURSE_EVERY_NOTEBOOK=1 $(BIN)/python -m pytest tests/test_notebooks.py tests/test_grading.py -k "empty_folder or earn_everything"

notebooks: $(READY)
	$(BIN)/python tools/notebooks.py

exercises: $(READY)
	$(BIN)/python tools/notebooks.py exercises/

assignments: $(READY)
	$(BIN)/python tools/assignments.py dist/assignments

repo: $(READY)
	$(BIN)/python tools/repository.py "$(URL)"

# For a class without a network: the site, the notebooks, and wheels of the package and all it needs.
stick: book
	rm -rf dist/stick
	mkdir -p dist/stick/wheels dist/stick/book
	cp -r _build/html dist/stick/site
	cp -r exercises solutions dist/stick/
	cp book/*.ipynb dist/stick/book/
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist/stick/wheels .
	$(BIN)/pip download --quiet --constraint requirements.txt --dest dist/stick/wheels dist/stick/wheels/ntk_course-*.whl notebook

benchmark: $(READY)
	$(BIN)/python benchmarks/cost.py

clean:
	rm -rf _build build dist *.egg-info
