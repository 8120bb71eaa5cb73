# Equipoise.  Two commands are all that a fresh machine needs:
#
#   make demo      see it work: a simulated site and the balancer in front of it; no root
#   make test      everything that is tested: make check, then make system
#
# The others:
#   make check     format, lint, types, import contracts, unit, property, playbook and golden tests, docs; under two minutes
#   make system    whole processes, with real peers
#   make fault     of these the fault run alone: everything that can fail does, and nothing acknowledged is lost
#   make lab       a hospital's network in namespaces, with layer 4 in the middle of it, to try by hand (needs root)
#   make pair-lab  the same with two machines for a pair, on which nothing runs yet: docs/tutorial/pair.md
#   make soak      an hour of HL7 while everything fails at random, and nothing is lost; SOAK_FOR=600 for ten minutes
#   make bench     throughput and memory beside HAProxy, TLS, overhead, studies, the web, HL7, layer 4, a pair (needs root); writes bench/results
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
# Runs that keep which tests failed, and the second look at these: docs/adr/0015-a-second-look.md.
PYTEST_KEEPING = $(PYTEST) --cache-clear -o cache_dir=.pytest_cache/$(1)
SECOND_LOOK = env --default-signal=INT $(BIN)/python -m tools.second_look $(addprefix .pytest_cache/,$(1))

DEMO_FOR ?= 30s
SOAK_FOR ?= 3600
# chromium is 113 MB to fetch and the largest by far; the browser's test is skipped where it is not.
TEST_PACKAGES := chromium conntrack conntrackd curl dcmtk faketime haproxy iproute2 iputils-arping keepalived \
	libnss3-tools nftables nginx-light odil orthanc orthanc-dicomweb procps tcpdump
LAB_PACKAGES := conntrackd curl dcmtk haproxy iproute2 keepalived nftables nginx-light procps tcpdump
BENCH_PACKAGES := conntrack curl gcc libc6-dev libssl-dev openssl haproxy dcmtk iproute2 keepalived libnginx-mod-stream \
	nftables nginx-light nghttp2-client procps tcpdump

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# A clone that was moved, or whose Python is gone, is installed again.
$(shell { grep -qsxF "$(CURDIR)" $(RUN) && $(BIN)/python -c ''; } 2>/dev/null || rm -f $(RUN) $(DEV))

.DELETE_ON_ERROR:
.PHONY: demo test check system fault lab pair-lab soak bench fuzz golden docs peers clean test-packages bench-packages lab-packages

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
	$(call PYTEST_KEEPING,fast) -n 2 --dist loadfile tests/unit tests/property tests/playbook tests/golden tests/arch \
		|| { [ $$? -eq 1 ] && $(call SECOND_LOOK,fast); }
	$(BIN)/python -m tools.reference --check

# Two halves beside each other, and the soak, which mostly waits.  The one has what brings a network of its own, and some
# that start a whole site, so that both take equally long.
BESIDE := tests/system/test_infinitt.py $(wildcard tests/system/test_layer4_*.py) $(wildcard tests/system/test_pair_*.py) \
	tests/system/test_addresses.py tests/system/test_doctor_layer4.py tests/system/test_keepalived.py \
	tests/system/test_prepare_node.py tests/system/test_demo_template.py tests/system/test_templates_run.py \
	tests/system/test_tutorial.py tests/system/test_tutorial_infinitt.py
SOAK := tests/system/test_hl7_soak.py

system: $(DEV) test-packages
	$(call PYTEST_KEEPING,beside) $(BESIDE) >.pytest-beside.log 2>&1 & beside=$$!; \
	$(PYTEST) -s $(SOAK) >.pytest-soak.log 2>&1 & soak=$$!; \
	$(call PYTEST_KEEPING,others) tests/system $(addprefix --ignore ,$(BESIDE) $(SOAK)); \
	others=$$?; wait $$beside; beside=$$?; wait $$soak; soak=$$?; \
	cat .pytest-beside.log .pytest-soak.log; rm -f .pytest-beside.log .pytest-soak.log; \
	[ $$soak -eq 0 ] && case $$others,$$beside in \
		0,0) ;; \
		[01],[01]) $(call SECOND_LOOK,others beside) ;; \
		*) false ;; \
	esac

fault: $(DEV) test-packages
	$(PYTEST) tests/system/test_fault_run.py

lab: $(DEV) lab-packages
	$(BIN)/python -m tests.lab

pair-lab: $(DEV) lab-packages
	$(BIN)/python -m tests.lab --pair

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
	$(BIN)/python -m bench.layer4
	$(BIN)/python -m bench.pair

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

lab-packages:
	@tools/debian_packages.sh $(LAB_PACKAGES)
