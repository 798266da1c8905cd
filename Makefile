# Two commands matter: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
# Which torch: auto (without an NVIDIA driver the smaller build without CUDA), cpu, cuda, or index (what the package index gives)
TORCH ?= auto
MINUTES ?= 30
SEED ?= 1
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: always constraints constraints-check docs fuzz sbom install demo test test-fast test-slurm test-hosts test-web test-viewers lint typecheck wheel bench soak clean

install: $(READY)

# A TORCH that is given on the command line is obeyed even if the environment is ready.
$(READY): setup.py setup.cfg pyproject.toml constraints.txt hashes.txt $(wildcard ptychostream/pva/_array_*pp) $(if $(filter command line,$(origin TORCH)),always)
	$(PYTHON) .ci/setup_environment.py $(VENV) --torch $(TORCH) --editable '.[edge,hpc,dev]'
	touch $(READY)

always:

# Writes constraints.txt and hashes.txt anew; needs every supported python3.N on PATH, and some minutes.
constraints: $(READY)
	$(BIN)/python .ci/constraints.py write
	$(BIN)/python .ci/hashes.py write

# The environment and constraints.txt name the same versions; which of them are outdated.
constraints-check: $(READY)
	$(BIN)/python -m pip check
	$(BIN)/python .ci/constraints.py check
	$(BIN)/python .ci/hashes.py check
	$(BIN)/python .ci/constraints.py outdated

# The bill of materials of the environment (CycloneDX), to build/sbom.json.
sbom: $(READY)
	$(BIN)/python .ci/licences.py sbom build/sbom.json

demo: $(READY)
	$(BIN)/ptychostream demo

# On three processes, the longest files first; what fails is run again, alone, and what fails twice has failed.
test: $(READY)
	$(BIN)/python .ci/tests.py -n 3 --dist loadfile --no-loadscope-reorder

# The tests that need no server, no other process and no training: about a minute on two cores.
test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not server and not slow and not slurm and not hosts and not browser"

# The agent's steps on a one-node Slurm that the test starts; as root it installs Debian's packages where they are missing.
test-slurm: $(READY)
	$(BIN)/python -m pytest -m slurm tests/system/test_slurm.py

# A cluster on three hosts, network namespaces that the test makes and takes down; needs root, and installs iproute2.
test-hosts: $(READY)
	$(BIN)/python -m pytest -m hosts tests/system/test_hosts.py

# The page in Debian's Chromium, which is installed as root where it is missing; selenium drives it.
test-web: $(READY)
	{ command -v chromium && command -v chromedriver; } >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium chromium-driver; }
	$(BIN)/python -m pip install --quiet --upgrade --target build/selenium 'selenium>=4.20,<5'
	PYTHONPATH=build/selenium $(BIN)/python -m pytest -m browser tests/web

# Served images as the viewers of others decode them: PyDM and c2dataviewer, which bring Qt.
VIEWERS = pydm==1.29.0 c2dataviewer==1.15.4 PyQt5 PyQt5-Qt5 PyQt5-sip pyqtgraph qtpy entrypoints six pyepics colorama
test-viewers: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --target build/viewers $(VIEWERS)
	PYTHONPATH=build/viewers $(BIN)/python -m pytest tests/ioc/test_viewers.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) typecheck

# mypy does not follow the editable mapping of folders to import names, so it checks an installed tree.
typecheck: $(READY)
	rm -rf build/typecheck
	$(BIN)/python -m pip install --quiet --no-deps --target build/typecheck .
	MYPYPATH=build/typecheck $(BIN)/mypy --config-file setup.cfg -p ptychostream

# The documentation, to build/docs/index.html; a warning is an error.
docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q -j auto -b html -d build/doctrees docs build/docs

# The built wheel with one extra at a time, each in a clean environment of $(PYTHON), tried from another folder.
wheel: wheel-edge wheel-hpc wheel-web

wheel-%:
	rm -rf build/wheel-$* build/dist-$* build/lib* build/temp* build/bdist.*
	$(PYTHON) -m venv build/wheel-$*
	build/wheel-$*/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/dist-$* .
	$(PYTHON) .ci/setup_environment.py build/wheel-$* --torch $(if $(filter hpc,$*),$(TORCH),none) --quiet "$$(ls build/dist-$*/*.whl)[$*]"
	cd build/wheel-$* && bin/python ../../tests/helpers/wheel_check.py $*
	rm -rf build/wheel-$* build/dist-$* build/lib* build/temp* build/bdist.*

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
FUZZ ?= codec ntndarray join contract model_file scan_file scan_layouts scan_structure

fuzz: $(READY)
	$(BIN)/python -m pip install --quiet 'atheris>=3.0,<4'
	for target in $(FUZZ); do nice -n 19 $(BIN)/python tests/fuzz $$target $(SECONDS) || exit 1; done

clean:
	rm -rf build dist results $(VENV)
