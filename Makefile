# What a newcomer runs. Needs Python 3.11, 3.12 or 3.13 and make, nothing else: uv comes from the package index.
PYTHON ?= $(or $(shell for v in 3.11 3.12 3.13; do python$$v -c "" 2> /dev/null && echo python$$v && break; done),python3)
VENV   ?= .venv
# Processes that tests run in: one a core. More than eight want more memory than they save time.
JOBS   ?= $(shell getconf _NPROCESSORS_ONLN)
# Kills of the long form of tests/faults, and how often each pair of commands runs at once.
KILLS  ?= 200
PAIRS  ?= 5
# Where pip is told to look for wheels on disk, uv looks too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export OMP_NUM_THREADS ?= 1

BIN   := $(VENV)/bin
READY := $(VENV)/.ready
# A file stays in one process, whose fixtures it shares; tests/conftest.py says which files come first. (loadgroup: xdist 3.8 does not group under pytest 9.2.)
TESTS := $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder
CUDA  := ^(cuda|nvidia)-|^triton=

.PHONY: install demo docs mlflow test test-slow test-faults test-cluster lint lock pipelines audit sbom check-images clean

install: $(READY)  ## the environment, pinned by requirements.lock

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" 2> /dev/null || { \
	  echo "no Python 3.11, 3.12 or 3.13 ($(PYTHON) is none): install one, for example 'apt install python3.11 python3.11-venv', or say where one is: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # uv does not; where bytecode may not be kept later, each process would compile torch anew
	@touch $(READY)

# The main job end to end: a three-stage chain, its metrics, a search, its report. NAICS_DATA=<folder with the four Census workbooks> trains on those.
demo: $(READY)
	$(BIN)/curricle train-curriculum --chain chain_demo paths.store_uri=checkpoints/demo $(if $(NAICS_DATA),'data.source=$(NAICS_DATA)')
	$(BIN)/curricle show --store checkpoints/demo
	$(BIN)/curricle search --store checkpoints/demo "we brew craft beer"
	@page=$$($(BIN)/curricle report --store checkpoints/demo sequential_01-02-03) && echo "report: open $$page in a browser"

# Warnings are errors: a dead link, a page that no list names, a docstring that cannot be read.
docs: $(READY)  ## the documentation site: build/site/index.html, to be opened from there
	@rm -rf build/site
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet --builder html --doctree-dir build/site-trees docs build/site
	@echo "site: open build/site/index.html in a browser"

# Full MLflow brings a web server and pandas (621 MB), so it stays out of the environment: uv keeps it in a folder of its own, of the version that the lock pins, which
# wrote the database.
MLFLOW_URI ?= sqlite:///mlflow.db
MLFLOW_PORT ?= 5000
mlflow: $(READY)  ## MLflow's pages over mlflow.db (MLFLOW_URI=, MLFLOW_PORT=): runs with their reports, registered models
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/uv tool run --python $(BIN)/python --from mlflow==$$(sed -n 's/^mlflow-skinny==//p' requirements.lock) mlflow ui --workers 1 --backend-store-uri $(MLFLOW_URI) --port $(MLFLOW_PORT)

test: $(READY)  ## on every core; what needs MinIO or ../shared skips with one line where it is not there
	$(TESTS) -m "not slow and not cluster and not gpu and not faults" $(PYTEST_ARGS)

test-slow: $(READY)  ## minutes each, and seldom broken
	$(TESTS) -m "slow and not cluster and not gpu and not faults" $(PYTEST_ARGS)

test-faults: $(READY)  ## KILLS kills at chosen moments, every fault of a store, pairs of commands at once, all bad input; prints tables (docs/faults.md)
	$(BIN)/python -m pytest -s -m faults --kills $(KILLS) --pairs $(PAIRS) $(PYTEST_ARGS) tests/faults

test-cluster: $(READY)  ## needs KUBECONFIG and an S3 endpoint
	$(BIN)/python -m pytest -m cluster $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One resolution for every Python and both builds of torch; what torch's CUDA build brings is split off, for it must not be asked of the CPU build.
# Pins that still fit are kept; `make lock LOCK_ARGS=--upgrade` renews them.
lock:  ## write requirements.lock and images/trainer/cuda.lock anew from pyproject.toml
	@mkdir -p build && cat requirements.lock images/trainer/cuda.lock > build/all.lock
	UV_FIND_LINKS= $(BIN)/uv pip compile -q pyproject.toml --extra test --universal --python-version 3.11 --no-annotate --no-header --no-emit-find-links \
	  --no-emit-index-url $(LOCK_ARGS) --output-file build/all.lock
	@(echo "# Every package of the whole environment, pinned, for Python 3.11 to 3.13. Written by \`make lock\`; no index addresses."; \
	  grep -vE '$(CUDA)' build/all.lock) > requirements.lock
	@(echo "# What torch's CUDA build brings beside requirements.lock. Written by \`make lock\`; constrains, installs nothing."; \
	  grep -E '$(CUDA)' build/all.lock) > images/trainer/cuda.lock

pipelines: $(READY)  ## compile kfp_pipelines/compiled/*.yaml
	$(BIN)/curricle pipeline compile

# The pins against the database of known vulnerabilities (it must be reachable: without --strict, what could not be looked up would pass).
audit: $(READY)  ## known vulnerabilities of requirements.lock
	$(BIN)/uv tool run pip-audit@2.10.1 --strict --no-deps --disable-pip --progress-spinner off -r requirements.lock

IMAGES ?= curricle/control:dev curricle/trainer:dev
sbom:  ## build/sbom-<name>.json of each of IMAGES, which must be built: what is installed in it, as CycloneDX
	@mkdir -p build
	@for image in $(IMAGES); do file=build/sbom-$$(echo $$image | tr '/:' '_').json; \
	  docker run --rm -i $$image python - sbom $$image < images/look.py > $$file && echo $$file || exit 1; done

check-images:  ## no setuid or setgid file and nothing that everybody may write in each of IMAGES
	@for image in $(IMAGES); do echo "$$image:"; docker run --rm -i --user 0 $$image python - check < images/look.py || exit 1; done

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
