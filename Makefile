# make demo: encode the demo. make test: run the tests. Both set up .venv first; PYTHON chooses its interpreter.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: help env demo demo-documents test test-slurm test-all bench bench-answers bench-knowledge bench-retrieval bench-scale bench-serve bench-translator gpu-check faults image builder clients test-clients lint format clean

help:
	@echo "make demo    encode the demo's passages with SmolLM2-135M-Instruct, and answer its questions"
	@echo "make demo-documents  the same from a folder of documents: cut, searched, asked about (by a model, beforehand), encoded"
	@echo "make test    run the tests, some minutes"
	@echo "make test-slurm  try the cluster profile on a Slurm of its own (Debian's slurmctld, slurmd, slurm-client, munge)"
	@echo "make test-all    both, and what takes longer: every bad input, every Slurm case, the campaign of faults in short"
	@echo "make clients     install vLLM, llama.cpp and an old PEFT, each in an environment below CLIENTS (.clients; 5 GB)"
	@echo "make test-clients  see that these answer with our adapters what Lorary answers (some minutes)"
	@echo "make bench   measure training on this machine against the reference's way (a quarter of an hour)"
	@echo "make bench-answers  measure answering against PEFT, one question after the other (some minutes)"
	@echo "make bench-knowledge  measure which recipe knows most of its passages, and with how many pairs (minutes a recipe and seed)"
	@echo "make bench-retrieval  measure the index of passages, up to a million of them (some minutes)"
	@echo "make bench-scale  measure each stage by the number of passages, 10,000 and 100,000 (some minutes; SIZES=... for others)"
	@echo "make bench-translator  measure what translators know of passages that they never saw (about an hour)"
	@echo "make bench-serve  measure the server with 1, 8 and 32 clients, and end it while they ask (some minutes)"
	@echo "make gpu-check   see whether all that is promised holds on this machine's GPUs (without any: on the processor)"
	@echo "make faults  kill runs at 100 random moments, try all bad input, and see that nothing is lost (half an hour)"
	@echo "make image   build the container image lorary (Containerfile), with podman, docker or buildah"
	@echo "make lint    check style and types: ruff, snakefmt, snakemake --lint, mypy"
	@echo "make format  write that style"
	@echo "make env     only set up .venv, with the pinned packages"
	@echo "make clean   remove results, logs and Snakemake's records (not the models, the store or .venv)"

env: .venv/.done

.venv/.done: envs/requirements.txt envs/requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lorary needs Python 3.11 or newer; choose one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r envs/requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: env
	$(BIN)/snakemake --cores all --resources gpu=1

demo-documents: env
	mkdir -p results/store/augmented
	cp -R resources/demo/augmented/. results/store/augmented/
	$(BIN)/snakemake --cores all --resources gpu=1 --configfile resources/demo/documents.yaml
	$(BIN)/python -m lorary ask "Who designed Ormvalk Light?" --run /invented_documents/ --top 1

TWO_AT_A_TIME = --numprocesses 2 --dist worksteal

test: env
	$(BIN)/pytest -m "not all" $(TWO_AT_A_TIME) tests/oracle tests/unit tests/workflow

test-slurm: env
	$(BIN)/pytest -m "not all" tests/slurm

test-all: env
	$(BIN)/pytest $(TWO_AT_A_TIME) tests/oracle tests/unit tests/workflow
	$(BIN)/pytest tests/slurm

CLIENTS ?= .clients

clients: $(CLIENTS)/vllm/.done $(CLIENTS)/llama-cpp/.done $(CLIENTS)/peft-0.13/.done

$(CLIENTS)/%/.done: envs/clients/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	$(@D)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-clients: env
	LORARY_CLIENTS=$(CLIENTS) $(BIN)/pytest tests/clients

bench: env
	$(BIN)/snakemake -s workflow/benchmarks/Snakefile bench --cores all --resources gpu=1 --forcerun bench

bench-answers: env
	$(BIN)/snakemake -s workflow/benchmarks/Snakefile bench_answers --cores all --resources gpu=1 --forcerun bench_answers

bench-knowledge: env
	$(BIN)/snakemake -s workflow/benchmarks/Snakefile bench_knowledge --cores all --resources gpu=1 --forcerun bench_knowledge

bench-retrieval: env
	$(BIN)/snakemake -s workflow/benchmarks/Snakefile bench_retrieval --cores 1 --forcerun bench_retrieval

bench-scale: env
	$(BIN)/snakemake -s workflow/benchmarks/Snakefile bench_scale --cores 1 --forcerun bench_scale

bench-translator: env
	$(BIN)/snakemake -s workflow/benchmarks/Snakefile bench_translator --cores all --resources gpu=1 --forcerun bench_translator

bench-serve: env
	$(BIN)/snakemake -s workflow/benchmarks/Snakefile bench_serve --cores all --resources gpu=1 --forcerun bench_serve

gpu-check: env
	$(BIN)/snakemake -s workflow/benchmarks/Snakefile gpu_check --cores all --resources gpu=1 \
		--forcerun gpu_check bench bench_answers

faults: env
	PYTHONPATH=workflow $(BIN)/python tests/faults.py

BUILDER ?= $(shell for each in podman docker buildah; do $$each info > /dev/null 2>&1 && echo $$each && break; done)

builder:
	@echo $(BUILDER)

image:
	@test -n "$(BUILDER)" || { echo "Neither podman, docker nor buildah works here; choose one with make image BUILDER=..."; exit 1; }
	$(BUILDER) build --file Containerfile --tag lorary $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) .

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

clean:
	rm -rf results/raw results/kept results/retrieved results/routes results/augment results/augmented results/adapters results/data results/prompts results/train results/predict results/predictions results/export \
		results/index results/report results/report.html results/scores.tsv results/failed.tsv logs benchmarks .snakemake
