# Two commands matter: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
MINUTES ?= 30
SEED ?= 1
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: fuzz install demo test test-slurm test-hosts lint typecheck wheel bench soak clean

install: $(READY)

$(READY): setup.py setup.cfg pyproject.toml constraints.txt $(wildcard ptychostream/pva/_array_*pp)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt --editable '.[edge,hpc,dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/ptychostream demo

test: $(READY)
	$(BIN)/python -m pytest -n 3 --dist loadfile

# The agent's steps on a one-node Slurm that the test starts; as root it installs Debian's packages where they are missing.
test-slurm: $(READY)
	$(BIN)/python -m pytest -m slurm tests/system/test_slurm.py

# A cluster on three hosts, network namespaces that the test makes and takes down; needs root, and installs iproute2.
test-hosts: $(READY)
	$(BIN)/python -m pytest -m hosts tests/system/test_hosts.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) typecheck

# mypy does not follow the editable mapping of folders to import names, so it checks an installed tree.
typecheck: $(READY)
	rm -rf build/typecheck
	$(BIN)/python -m pip install --quiet --no-deps --target build/typecheck .
	MYPYPATH=build/typecheck $(BIN)/mypy --config-file setup.cfg -p ptychostream

# The built wheel, in a clean environment, from another folder.
wheel: $(READY)
	rm -rf build/wheel dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet -c constraints.txt "$$(ls dist/*.whl)[edge]"
	cd build/wheel && bin/python ../../tests/helpers/wheel_check.py

bench: $(READY)
	mkdir -p results/bench
	$(BIN)/ptychostream bench inference --json | tee results/bench/inference.json
	$(BIN)/ptychostream bench reconstruction --json | tee results/bench/reconstruction.json
	$(BIN)/ptychostream bench stream --fps 2000 --seconds 60 --shape 128x128 --dtype uint16 --engine none --json | tee results/bench/stream-none.json
	$(BIN)/ptychostream bench stream --seconds 60 --shape 128x128 --dtype uint16 --engine Auto --json | tee results/bench/stream-auto.json

# The stream under random faults: make soak MINUTES=30 SEED=1. Ctrl-C ends it with the report of what was seen so far.
soak: $(READY)
	$(BIN)/ptychostream bench soak --minutes $(MINUTES) --seed $(SEED) --out results/soak

# Coverage-guided fuzzing, each target for SECONDS; atheris (Apache 2.0) has wheels for Linux and CPython 3.11 and later.
SECONDS ?= 600
FUZZ ?= codec ntndarray join contract model_file scan_file scan_structure

fuzz: $(READY)
	$(BIN)/python -m pip install --quiet 'atheris>=3.0,<4'
	for target in $(FUZZ); do nice -n 19 $(BIN)/python tests/fuzz $$target $(SECONDS) || exit 1; done

clean:
	rm -rf build dist results $(VENV)
