# Equipoise.  Two commands are all that a fresh machine needs:
#
#   make demo      see it work: a simulated site and the balancer in front of it; no root
#   make test      everything that is tested: make check, then make system
#
# The others:
#   make check     format, lint, types, import contracts, unit, property, playbook and golden tests, docs; under two minutes
#   make system    whole processes, with real peers
#   make fault     of these the fault run alone: everything that can fail does, and nothing acknowledged is lost
#   make soak      an hour of HL7 while everything fails at random, and nothing is lost; SOAK_FOR=600 for ten minutes
#   make bench     throughput and memory beside HAProxy, TLS, overhead, studies, the web, HL7 (needs root); writes bench/results
#   make fuzz      property tests with ever new examples, until stopped
#   make golden    write the expected output of the golden tests anew: read that diff
#   make docs      write what is generated in docs/reference
#   make peers     talk with every real peer, and write docs/reference/peers.md from what came of it
#   make clean     remove what these commands made, the virtual environment included
#
# PYTHON=/path/to/python3 chooses the interpreter of the virtual environment; it is used when that is made.

# Debian's own interpreter before another one in PATH: it is built with optimisations that home-made ones often lack.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

# What runs in the background has SIGINT ignored, and so would everything that the tests interrupt.
PYTEST := env --default-signal=INT $(BIN)/python -m pytest

DEMO_FOR ?= 30s
SOAK_FOR ?= 3600
# chromium is 113 MB to fetch and the largest by far; the browser's test is skipped where it is not.
TEST_PACKAGES := chromium curl dcmtk haproxy iproute2 libnss3-tools odil orthanc orthanc-dicomweb
BENCH_PACKAGES := gcc libc6-dev libssl-dev openssl haproxy dcmtk iproute2 nginx-light nghttp2-client

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# A clone that was moved, or whose Python is gone, is installed again.
$(shell { grep -qsxF "$(CURDIR)" $(RUN) && $(BIN)/python -c ''; } 2>/dev/null || rm -f $(RUN) $(DEV))

.DELETE_ON_ERROR:
.PHONY: demo test check system fault soak bench fuzz golden docs peers clean test-packages bench-packages

demo: $(RUN)
	$(BIN)/equipoise demo --for $(DEMO_FOR)

test:
	$(MAKE) check
	$(MAKE) system
	@echo "make test: all passed"

check: $(DEV) test-packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	# Those of HAProxy mostly wait for it: beside the others they cost no time.
	$(PYTEST) tests/unit/engines/haproxy >.pytest-haproxy.log 2>&1 & haproxy=$$!; \
	$(PYTEST) tests/unit tests/property tests/playbook tests/golden tests/arch --ignore tests/unit/engines/haproxy; \
	others=$$?; wait $$haproxy; haproxy=$$?; cat .pytest-haproxy.log; rm -f .pytest-haproxy.log; \
	[ $$others -eq 0 ] && [ $$haproxy -eq 0 ]
	$(BIN)/python -m tools.reference --check

# The INFINITT site has a network of its own, and mostly waits, and so does the soak: they run beside the others.
system: $(DEV) test-packages
	$(PYTEST) tests/system/test_infinitt.py >.pytest-infinitt.log 2>&1 & infinitt=$$!; \
	$(PYTEST) -s tests/system/test_hl7_soak.py >.pytest-soak.log 2>&1 & soak=$$!; \
	$(PYTEST) tests/system --ignore tests/system/test_infinitt.py --ignore tests/system/test_hl7_soak.py; \
	others=$$?; wait $$infinitt; infinitt=$$?; wait $$soak; soak=$$?; \
	cat .pytest-infinitt.log .pytest-soak.log; rm -f .pytest-infinitt.log .pytest-soak.log; \
	[ $$others -eq 0 ] && [ $$infinitt -eq 0 ] && [ $$soak -eq 0 ]

fault: $(DEV) test-packages
	$(PYTEST) tests/system/test_fault_run.py

soak: $(DEV) test-packages
	SOAK_FOR=$(SOAK_FOR) $(PYTEST) -s tests/system/test_hl7_soak.py

bench: $(DEV) bench-packages
	$(BIN)/python -m bench.relay
	$(BIN)/python -m bench.policies
	$(BIN)/python -m bench.tls
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.studies
	$(BIN)/python -m bench.web
	$(BIN)/python -m bench.toggles
	$(BIN)/python -m bench.hl7

fuzz: $(DEV)
	while $(PYTEST) -p tools.fuzz --timeout 0 tests/property; do :; done

golden: $(DEV)
	EQUIPOISE_GOLDEN=rewrite $(PYTEST) tests/golden
	git --no-pager diff --stat -- tests/golden

docs: $(DEV)
	$(BIN)/python -m tools.reference

peers: $(DEV) test-packages
	$(PYTEST) -p tests.system.peers_page tests/system/test_real_peers_orthanc.py tests/system/test_real_peers_others.py \
		tests/system/test_real_peers_worklist.py

clean:
	rm -rf $(VENV) build dist bench/build src/*.egg-info .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests bench tools -name __pycache__ -prune -exec rm -rf {} +

$(RUN): pyproject.toml constraints.txt
	tools/virtual_environment.sh "$(PYTHON)" $(VENV)
	$(INSTALL) .
	echo "$(CURDIR)" >$@

$(DEV): pyproject.toml constraints.txt
	tools/virtual_environment.sh "$(PYTHON)" $(VENV)
	$(INSTALL) '.[dev]'
	echo "$(CURDIR)" | tee $(RUN) >$@

test-packages:
	@tools/debian_packages.sh $(TEST_PACKAGES)

bench-packages:
	@tools/debian_packages.sh $(BENCH_PACKAGES)
