# make demo   a small network learns to tell motions apart: minutes on a laptop, from nothing
# make test   the whole test suite, the linter and the type checker
# make lint, make format   the linter and the type checker; their corrections
# make test-torch   what compares with PyTorch, which it installs (CPU)
# make test-package   the wheel, installed without the packages for training
# make test-versions   imports, one layer and a tiny run with each Python at hand, and so with both versions of JAX
# make compile-tpu, make compile-gpu   benchmarks by the compilers of chips that need not be there

PYTHON ?= python3
VENV := .venv
TORCH := 2.13.0
BIN := $(VENV)/bin
DEMO := demo/motion
RUN := $(BIN)/python main.py --config configs/motion.py --workdir $(DEMO) --config.data.data_dir=demo/data

.PHONY: demo test test-torch test-versions test-smoke lint format test-package compile-tpu compile-gpu

demo: $(VENV)/installed
	$(RUN)
	$(RUN) --mode eval
	$(BIN)/python -m rsa_jax gallery --workdir $(DEMO) --out $(DEMO)/predictions.png
	$(BIN)/python -m rsa_jax visualize --workdir $(DEMO) --index 0 --layer 2 --out $(DEMO)/kernels.png
	@echo
	@$(BIN)/python -m rsa_jax summary --workdir $(DEMO)
	@echo
	@echo "Next: the same network without RSA, which cannot tell a motion from its reverse:"
	@echo "  $(BIN)/python main.py --config configs/motion.py --workdir demo/conv2d \\"
	@echo "      --config.data.data_dir=demo/data --config.model.transform=conv2d"
	@echo "Your own videos: see README.md"

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The wheel and the sdist in environments of their own, with the base package's requirements only.
test-package: $(VENV)/installed
	$(BIN)/python -m tests.package

# Each Python has an environment of its own. requirements.txt has JAX 0.10 for 3.11, and JAX 0.11 for later ones.
PYTHONS ?= python3.11 python3.12 python3.13

test-versions:
	for python in $(PYTHONS); do \
		if $$python -c "" 2>/dev/null; then $(MAKE) test-smoke PYTHON=$$python VENV=.venv-$$python || exit 1; \
		else echo "$$python is not there"; fi; done

test-smoke: $(VENV)/installed-dev
	$(BIN)/python -c 'import sys, jax, flax; print("Python", sys.version.split()[0], "JAX", jax.__version__, "Flax", flax.__version__)'
	$(BIN)/python -m pytest --numprocesses=0 tests/tools/test_imports.py tests/nn/test_golden.py \
		tests/test_main.py -k "imports or golden or logs_evaluates_and_saves or counts_every_clip"

test-torch: $(VENV)/installed-torch
	$(BIN)/python -m pytest -m torch --numprocesses=0

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .[dev]
	touch $@

# PyTorch for the CPU; PyPI has the one for CUDA on Linux. No retries: what cannot be reached would take minutes.
$(VENV)/installed-torch: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check --retries 0 torch==$(TORCH) \
		--extra-index-url https://download.pytorch.org/whl/cpu
	touch $@

# The compilers in environments of their own: beside them, JAX would look for a chip. ONLY: programs that begin so.
ONLY ?=
compile-tpu: CHIPS ?= v5e v6e
compile-gpu: CHIPS ?= h100

# With the usual 8 MiB for the stack, the compiler for v6e crashes.
compile-tpu: .venv-tpu/installed
	ulimit -s $$(ulimit -H -s); for chip in $(CHIPS); do JAX_PLATFORMS=cpu .venv-tpu/bin/python -m benchmarks.accelerators --chip $$chip --only "$(ONLY)" || exit 1; done

compile-gpu: .venv-gpu/installed
	for chip in $(CHIPS); do JAX_PLATFORMS=cpu .venv-gpu/bin/python -m benchmarks.accelerators --chip $$chip --only "$(ONLY)" || exit 1; done

.venv-%/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt --editable .[$*]
	touch $@
