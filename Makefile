# Every target sets up what it needs first; `make help` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=
WORKERS ?= auto

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup check lock run test sim formal mutate random soak waves verilog lint bench cuts docs bitstream flash clean

comma := ,

# need(command that succeeds where the tool is there, name, how to install it)
need = $(1) >/dev/null 2>&1 || { echo "tick2quote: $(2) is missing; install it, e.g. with: apt-get install $(3)" >&2; exit 1; }

help:  ## this list
	@awk 'BEGIN {FS = ":.*?## "} /^[a-z]+:.*?## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  Options go in ARGS, e.g. make run ARGS="my.pcap" or make test ARGS="tests/host -x".'

setup: $(STAMP)  ## make .venv with the exact versions of requirements.lock (again only when they change)

check:
	@$(call need,$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3$(comma) 11))',Python 3.11 ($(PYTHON)),python3.11)
	@$(call need,$(PYTHON) -c 'import ensurepip; import venv',the venv module of $(PYTHON),python3.11-venv)
	@$(call need,command -v $(or $(CXX),g++),a C++ compiler ($(or $(CXX),g++)),g++)
	@$(call need,command -v perl,perl,perl)

$(STAMP): requirements.lock pyproject.toml | check
	@echo "tick2quote: installing the pinned packages into $(VENV) (a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(call need,$(BIN)/python -c 'import find_libpython as f; assert f.find_libpython()',the shared library of $(PYTHON),libpython3.11)
	@touch $@

lock: | check
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -qq --disable-pip-version-check setuptools
	@build/lock/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	    print("\n".join(p["dependencies"] + p["optional-dependencies"]["dev"]))' > build/lock/direct.txt
	@build/lock/bin/python -m pip install -qq --disable-pip-version-check -r build/lock/direct.txt
	@{ sed '/^[^#]/,$$d' requirements.lock; build/lock/bin/python -m pip freeze --all | grep -vE '^(pip|wheel)=='; } \
	    > build/lock/new && mv build/lock/new requirements.lock

run: setup  ## replay market data through the gateware and show the table; results in out/
	@$(BIN)/t2q replay $(ARGS)

test: setup  ## every test: unit, cocotb, host, end to end
	@$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile $(ARGS)

sim: setup  ## only the tests that simulate the gateware (components, virtual board, cocotb)
	@$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile tests/hdl tests/sim tests/core $(ARGS)

formal: setup  ## prove what docs/proofs.md says of the gate: out/proofs.json (ARGS="dead_man" for one)
	@$(BIN)/python -m tests.proof $(ARGS)

mutate: setup  ## put 1000 single faults into the gate: what catches each? out/mutation.json (ARGS=--all: every one, for hours)
	@$(BIN)/python -m tests.mutation $(ARGS)

random: setup  ## a million random cases through the gate, against its definitions: out/random.json (ARGS="--cases N --seed S")
	@$(BIN)/python -m tests.random_gate $(ARGS)

soak: setup  ## quotes and messages over a wire with faults, against the kernel's TCP: out/session.json (ARGS=--short)
	@$(BIN)/python -m sim.soak $(ARGS)

verilog: setup  ## write the core as Verilog: build/core.v
	@$(BIN)/python -m sim.board verilog --output build/core.v $(ARGS)

lint: setup  ## ruff over the Python, Verilator's lint over the generated Verilog
	@$(BIN)/ruff check .
	@$(BIN)/python -m sim.board lint $(ARGS)

bench: setup  ## latency in every case, asserted, and simulation speed: out/bench.json (ARGS=--quick: short; --docs)
	@$(BIN)/python -m sim.bench $(ARGS)

cuts: setup  ## cut host link, daemon, feed, session at 200 random moments; nothing may stay live: out/cuts.json
	@$(BIN)/python -m tests.e2e.cuts --points 200 $(ARGS)

waves: setup  ## out/core.vcd: the signals of the core while a market data packet becomes a quote
	@$(BIN)/python -m sim.waves --output out/core.vcd $(ARGS)

docs: setup  ## write what is generated: registers, link, and the tables of boards, latency, proofs, mutation, README (make bench, formal, mutate)
	@$(BIN)/python -m hdl.control.document
	@$(BIN)/python -m boards.document
	@$(BIN)/python -m tests.proof.document
	@$(BIN)/python -m tests.mutation.document
	@$(BIN)/python -m sim.bench.document

bitstream: setup  ## make bitstream BOARD=...: a bitstream in build/boards/, its figures in out/boards/; timing checked
	@$(BIN)/python -m boards build $(or $(BOARD),$(error BOARD is missing: make bitstream BOARD=colorlight_5a75b_r7_0|ecpix5|versa_ecp5)) $(ARGS)

flash: setup  ## make flash BOARD=... ARGS="--port /dev/ttyUSB0": write it to the board and check the card (untried)
	@$(BIN)/t2q flash $(or $(BOARD),$(error BOARD is missing: make flash BOARD=colorlight_5a75b_r7_0|ecpix5|versa_ecp5)) $(ARGS)

clean:  ## remove everything made by the other targets, .venv too
	@rm -rf $(VENV) build out .pytest_cache .ruff_cache .hypothesis ./*.egg-info
	@find hdl host sim boards tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
