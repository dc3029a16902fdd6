# Everything runs in .venv, which `make install` makes and every other target needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One FAISS per environment: the GPU build where there is an NVIDIA driver, the CPU build elsewhere.
EXTRAS := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo faiss),serve,postgres,qdrant,pgvector,ray,dev,docs

.PHONY: help install demo test lint types check docs compiled bench throughput accuracy peers serve-bench serve-soak \
	serve-abuse serve-kills gpu gpu-carry table clean

help:
	@echo "make demo      train SASRec on MovieLens 100K, test it, list ten titles for one user"
	@echo "make test      run the tests, two at a time: make test WORKERS=2"
	@echo "make check     lint, types and tests"
	@echo "make docs      the site, into build/site"
	@echo "make table     write the README's table, training on MovieLens 100K what has no record"
	@echo "make accuracy  do what is not done of the recipes: make accuracy RECIPES=ml-100k RUNS=runs DATA=logs"
	@echo "make compiled  compile every GPU kernel for every chip, and write the table that is checked"
	@echo "make bench     time the kernels against their rivals"
	@echo "make throughput  time kernels, training, search, requests by pytest-benchmark: NAME=mine COMPARE=0001"
	@echo "make peers     SASRec training against RecBole and RecTools: make peers LOG=ratings.parquet"
	@echo "make serve-bench  what recsys serve reaches under load: SASREC=run MAMBA=run LINES=noop,history"
	@echo "make serve-soak   an hour of steady load on a service: SASREC=run MINUTES=60"
	@echo "make serve-abuse  a service among slow and idle clients, 10,000 at a time: SASREC=run"
	@echo "make serve-kills  kill -9 of a service's processes while events come in: SASREC=run ROUNDS=200"
	@echo "make gpu       stages of tests and benchmarks on a GPU, going on where they ended: STAGES=tests,topk LIMIT=560"
	@echo "make gpu-carry  what a GPU machine without a network takes along, into .carry: rivals' wheels"
	@echo "make install   make .venv alone"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/recsys train ml-100k --encoder sasrec --set training.epochs=30 --out demo --overwrite
	$(BIN)/recsys recommend demo --user 1 --k 10
	@echo "Curves: demo/plots/training.png"

# How many tests run at a time, each on one thread: compiling and interpreting kernels use no more.
WORKERS ?= 2
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --benchmark-disable \
		tests benchmarks/throughput

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md .ci benchmarks/*.py datasets docs kernels recsys tests

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types test

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Open build/site/index.html"

table: $(INSTALLED)
	$(BIN)/recsys bench accuracy ml-100k/sasrec-tuned ml-100k/bert4rec-tuned ml-100k/mamba-tuned \
		--runs $(RUNS) --tables --readme
	$(BIN)/python -m recsys.benchmarks.pages

# Which recipes (`recsys bench accuracy` lists them), where the logs lie, where the runs go.
RECIPES ?= ml-100k
RUNS ?= runs
accuracy: $(INSTALLED)
	$(BIN)/recsys bench accuracy $(RECIPES) --runs $(RUNS) $(if $(DATA),--data $(DATA)) --tables

compiled: $(INSTALLED)
	$(BIN)/recsys bench kernels --compile-only --write benchmarks/results/compiled-kernels.json

bench: $(INSTALLED)
	$(BIN)/recsys bench kernels --out benchmarks/results/kernels-cpu.json

# Saves benchmarks/results/throughput/MACHINE/NNNN_NAME.json; COMPARE=NNNN prints ratios to that run.
NAME ?= $(shell git rev-parse --short HEAD)
THREADS ?= 1
throughput: $(INSTALLED)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest benchmarks/throughput --benchmark-only -q \
		--benchmark-storage=benchmarks/results/throughput --benchmark-save=$(NAME) \
		$(if $(COMPARE),--benchmark-compare=$(COMPARE) --benchmark-group-by=fullname) $(if $(ONLY),-k $(ONLY))

peers: $(INSTALLED)
	$(BIN)/python -m benchmarks.peers.sasrec_training --log $(LOG)

# Runs to serve; without them serve-bench trains its own on a made log. LINES are those of benchmarks/serving/lines.py.
SASREC ?= build/serving-runs/sasrec
MINUTES ?= 60
serve-bench: $(INSTALLED)
	$(BIN)/python -m recsys.benchmarks.serving.table $(if $(wildcard $(SASREC)),--sasrec $(SASREC)) \
		$(if $(MAMBA),--mamba $(MAMBA)) $(if $(LINES),--lines $(LINES))

serve-soak: $(INSTALLED)
	$(BIN)/python -m recsys.benchmarks.serving.soak $(SASREC) --minutes $(MINUTES)

serve-abuse: $(INSTALLED)
	$(BIN)/python -m recsys.benchmarks.serving.abuse $(SASREC)

serve-kills: $(INSTALLED)
	$(BIN)/python -m recsys.benchmarks.serving.kills $(SASREC) $(if $(ROUNDS),--rounds $(ROUNDS))

# Installs nothing: a GPU machine brings torch, triton, numba, pytest and matplotlib. Records go to build/gpu and $OUT.
GPU_PYTHON ?= python3
LIMIT ?= 560
gpu:
	PYTHONPATH=. PYTHONUNBUFFERED=1 $(GPU_PYTHON) -m recsys.benchmarks.gpu --seconds $(LIMIT) \
		$(if $(STAGES),--stages $(STAGES)) $(if $(FRESH),--fresh) $(if $(DRY),--dry)

gpu-carry: $(INSTALLED)
	$(BIN)/python -m recsys.benchmarks.gpu.carry $(WHEELS)

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
