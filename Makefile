# Every target sets up what it needs in .venv; a stamp file makes it do so once.
#   make demo    train a small ResNet and its RLA form side by side (minutes, CPU)
#   make test    lint, types and the whole test suite
#   make test-mmdet    the tests of the MMDetection integration, in .venv-mmdet
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

CONSTRAINTS ?=

.PHONY: demo test suite test-mmdet test-oldest lint format docs clean fuzz zoo digest wild peers chaos bench

demo: $(VENV)/.installed-train
	$(BIN)/rlawrap demo

test: lint suite

# The same suite with the lowest Python and the lowest versions that pyproject.toml names.
PYTHON_OLDEST ?= python3.10
test-oldest:
	$(MAKE) VENV=.venv-oldest PYTHON=$(PYTHON_OLDEST) CONSTRAINTS="-c tests/oldest.txt" suite

# The tests alone, without lint and types, which newer tools check.
suite: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# The MMDetection integration, with what MMDetection needs, in an environment of its own.
test-mmdet: .venv-mmdet/.installed-mmdet
	.venv-mmdet/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal \
		tests/integrations/mmdet rlawrap/integrations/mmdet

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Random networks by the thousand, against everything that `apply` promises.
fuzz: $(VENV)/.installed-test
	$(BIN)/python -m tests.fuzz --examples 2000

# Every CNN of torchvision and timm, one at a time; goes on where it stopped. Hours.
zoo: $(VENV)/.installed-test
	$(BIN)/python -m tests.zoo.sweep --report docs/zoo.md

# The plan of every network of the zoo, against the committed digests. An hour.
digest: $(VENV)/.installed-test
	$(BIN)/python -m tests.zoo.digest --fresh

# Time and memory of a hidden state; writes docs/performance.md; an hour, goes on where it stopped.
bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.speed

# Networks of other people's packages, in an environment of their own; goes on where it stopped.
wild: .venv-wild/.installed-wild
	.venv-wild/bin/python -m tests.wild.sweep --report docs/wild.md

# timm's own model tests, fetched, on networks with a hidden state.
peers: $(VENV)/.installed-test
	$(BIN)/python -m tests.peers

# Training processes killed at random moments.
chaos: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m chaos tests/chaos tests/train

# torchaudio asks for the torch of its own number, and runs with later ones.
.venv-wild/.installed-wild: tests/wild/requirements.txt pyproject.toml
	test -x .venv-wild/bin/python || $(PYTHON) -m venv .venv-wild
	.venv-wild/bin/python -m pip install --editable . --requirement tests/wild/requirements.txt
	.venv-wild/bin/python -m pip install --no-deps torchaudio==2.11.0
	touch $@

.venv-mmdet/.installed-mmdet: tests/integrations/mmdet/requirements.txt pyproject.toml
	test -x .venv-mmdet/bin/python || $(PYTHON) -m venv .venv-mmdet
	.venv-mmdet/bin/python -m pip install --editable '.[mmdet,timm]' \
		--requirement tests/integrations/mmdet/requirements.txt
	touch $@

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-wild .venv-mmdet build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .installed-EXTRA: the package in development mode, with that extra of pyproject.toml.
$(VENV)/.installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing rlawrap[$*] with PyTorch into $(VENV): some GB, a minute or more."
	$(BIN)/python -m pip install $(CONSTRAINTS) --editable '.[$*]'
	touch $@
