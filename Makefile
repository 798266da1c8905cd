# Two commands matter: `make demo` and `make test`. Both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: install demo test lint typecheck wheel bench clean

install: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt --editable '.[edge,hpc,dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/ptychostream demo

test: $(READY)
	$(BIN)/python -m pytest

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
	cd build/wheel && bin/python ../../tests/wheel_check.py

bench: $(READY)
	mkdir -p results/bench
	$(BIN)/ptychostream bench inference --json | tee results/bench/inference.json
	$(BIN)/ptychostream bench reconstruction --json | tee results/bench/reconstruction.json
	$(BIN)/ptychostream bench stream --fps 2000 --seconds 60 --shape 128x128 --dtype uint16 --engine none --json | tee results/bench/stream-none.json
	$(BIN)/ptychostream bench stream --seconds 60 --shape 128x128 --dtype uint16 --engine Auto --json | tee results/bench/stream-auto.json

clean:
	rm -rf build dist results $(VENV)
