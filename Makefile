# make book   the site, into _build/html          make test       lint, unit tests, every notebook
# make quick  lint, and unit tests without browser and notebooks: a few minutes
# make notebooks   regenerate the .ipynb files    make exercises  only those of the exercises
# make benchmark   what kernels cost, and peers   make pack       all that a class needs without a network
# make assignments   a course directory for nbgrader, dist/assignments
# make pdf       the whole book as one PDF, _build/book.pdf; it needs a Chromium
# make slides    every chapter's deck as PDF too, with notes and without, in _build/html/slides; Chromium again
# make colab, oldest, newest, unpinned    tests and notebooks in other environments; make links  links that lead outside
# make repo URL=https://github.com/OWNER/NAME     move to another address
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REQUIREMENTS := requirements.txt
CACHE := _build/.jupyter_cache/global.db
TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
PAGES_AS := NTK_COURSE_STATIC=1 NTK_COURSE_STRICT=1 PYTHONPATH=tools
JCACHE := JUPYTERCACHE=$(dir $(CACHE)) OMP_NUM_THREADS=1 $(BIN)/jcache
unexport NTK_COURSE_DATA MPLBACKEND

.PHONY: book pdf slides test quick lint unit nbval notebooks everywhere exercises assignments repo pack colab colab-image oldest newest unpinned links release benchmark clean

$(READY): $(REQUIREMENTS) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement $(REQUIREMENTS)
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

slides: book
	$(BIN)/python tools/slides.py _build

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

# Notebooks whose page `make book` has just run, with the outputs that are promised, are not run again.
nbval: $(READY)
	left=$$($(BIN)/python tools/unexecuted.py $(dir $(CACHE))) && NTK_COURSE_STRICT=1 $(TWO) --dist loadfile --nbval-lax -p no:cacheprovider $$left

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

# For a class without a network: site, notebooks, wheels, data for students; solutions, slides, grading for those who teach.
# PACK="--system windows --python 3.12" makes a smaller one; NTK_COURSE_DATA names a folder with MNIST and CIFAR-10.
pack: slides
	NTK_COURSE_DATA="$(NTK_COURSE_DATA)" $(BIN)/python tools/pack.py dist/pack --zip $(PACK)

# Every notebook with this Python's own packages, as in Colab's image, sliders live: no virtual environment.
colab:
	$(PYTHON) -m pip install --quiet --no-deps .
	$(PYTHON) tools/run_notebooks.py

colab-image:
	docker run --rm --volume "$$PWD:/course" --workdir /course --entrypoint bash us-docker.pkg.dev/colab-images/public/runtime:latest \
	  -c "make colab PYTHON=python3"

# What tests and notebooks need beside the package, and the tests that look at the site, the repository or other packages.
TOOLS_OF_TESTS := pytest pytest-xdist hypothesis nbclient ipykernel filelock jupytext pybtex PyYAML linear_operator
OTHER_TESTS := site slides pages notebooks house repository results hugging_face assignments grading store

# The package's tests and every notebook at the oldest versions that pyproject.toml allows, and at the newest there are.
oldest newest:
	$(PYTHON) -m venv --clear .venv-$@
	$(PYTHON) tools/bounds.py $@ > .venv-$@/bounds.txt
	.venv-$@/bin/pip install --quiet --constraint .venv-$@/bounds.txt . $(TOOLS_OF_TESTS)
	OMP_NUM_THREADS=1 .venv-$@/bin/python -m pytest -q -n 2 -m "not browser and not slow" $(OTHER_TESTS:%=--ignore tests/test_%.py)
	.venv-$@/bin/python tools/run_notebooks.py

# The book and all tests with no version pinned but two: Jupyter Book 2 reads another configuration, and ipykernel 7 can hang.
unpinned:
	mkdir -p _build
	sed '/^jupyter-book==/!{/^ipykernel==/!s/==.*//}' requirements.txt > _build/unpinned.txt
	$(MAKE) book test REQUIREMENTS=_build/unpinned.txt VENV=.venv-unpinned

# A release with the pack, under the edition's tag, unless there is one.
release: $(READY)
	$(BIN)/python tools/release.py

links: $(READY)
	$(PAGES_AS) $(BIN)/jupyter-book build . --builder linkcheck

benchmark: $(READY)
	$(BIN)/python benchmarks/cost.py

clean:
	rm -rf _build build dist *.egg-info .venv-*
