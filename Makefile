# make demo      the road end to end on a real model
# make test      every test: C++, packaging, Python
# make lint      formatting, style, types
# make sanitize  the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
# make bench     the benchmarks against other runtimes; writes benchmarks/results/
#
# Each sets itself up in .venv and build/, and does again only what has changed. Needs CPython 3.11 or later, a C++17
# compiler, make and git; everything else comes from PyPI.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
JOBS ?= 2
VENV := .venv
PY := $(VENV)/bin/python
BUILD := build/dev
CMAKE_FLAGS := -G Ninja -DPython_EXECUTABLE=$(CURDIR)/$(PY)
NATIVE := CMakeLists.txt bindings/* runtime/CMakeLists.txt $(shell find runtime -name '*.cpp' -o -name '*.h')
SOURCES := $(shell find lutc passes -name '*.py' -not -name '*_test.py')

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export HF_HUB_OFFLINE := 1
export ORT_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1

.PHONY: help env build test test-native test-package demo lint format sanitize bench clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -n 9

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt tools/requirements.py
	@test -n "$(PYTHON)" || { echo "no python3 found: set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) tools/requirements.py dev demo > $(VENV)/requirements.txt
	$(PY) -m pip install --quiet --constraint constraints.txt --requirement $(VENV)/requirements.txt
	@touch $@

# In place: lutc is imported from this checkout, the compiled binding lies beside its Python.
build: $(VENV)/.ready
	@test -e lutc/passes || ln -s ../passes lutc/passes
	@echo "$(CURDIR)" > "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lutc-in-place.pth"
	@printf '#!/bin/sh\nexec "$(CURDIR)/$(PY)" -m lutc "$$@"\n' > $(VENV)/bin/lutc && chmod +x $(VENV)/bin/lutc
	@cmake -S . -B $(BUILD) $(CMAKE_FLAGS) -DLUTC_TESTS=ON -DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(CURDIR)/lutc > $(VENV)/cmake.log \
	  || { cat $(VENV)/cmake.log; exit 1; }
	ninja -C $(BUILD) -j $(JOBS) --quiet

test-native: build
	ctest --test-dir $(BUILD) --no-tests=error --output-on-failure -j $(JOBS)

# What a user gets from `pip install .`: built in isolation (unoptimised, to save time), imported from elsewhere, driven
# by its console script.
test-package: build/package/.ready

build/package/.ready: $(NATIVE) $(SOURCES) pyproject.toml setup.py README.md | $(VENV)/.ready
	rm -rf build/package build/lib* build/bdist* && mkdir -p build/package
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) CMAKE_ARGS=-DCMAKE_CXX_FLAGS_RELEASE=-O0 $(PY) -m pip wheel --quiet --no-deps --wheel-dir build/package .
	$(PY) -m pip install --quiet --no-deps --target build/package/site build/package/lutc-*.whl
	cd build/package && PYTHONPATH=site $(CURDIR)/$(PY) -c "import lutc, lutc._runtime, lutc.passes as p; print(p.__file__)" | grep -q /build/package/site/
	cd build/package && PYTHONPATH=site site/bin/lutc --help > /dev/null
	@touch $@

test: build test-native test-package
	$(PY) -m pytest $(PYTEST_FLAGS)

demo: build
	$(PY) -m demo

lint: build
	ruff check .
	ruff format --check .
	mypy
	git ls-files '*.cpp' '*.h' | xargs clang-format --dry-run --Werror

format: $(VENV)/.ready
	ruff check --fix .
	ruff format .
	git ls-files '*.cpp' '*.h' | xargs clang-format -i

sanitize: $(VENV)/.ready
	cmake -S . -B build/sanitize $(CMAKE_FLAGS) -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g1" -DLUTC_PYTHON=OFF -DLUTC_TESTS=ON \
	  -DLUTC_SANITIZE=address,undefined
	ninja -C build/sanitize -j $(JOBS) --quiet
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ctest --test-dir build/sanitize --no-tests=error --output-on-failure -j $(JOBS)

# Peers that cannot be installed are named as skipped. TVM tunes for two minutes of processor time a layer, once.
PEERS := matplotlib openvino "apache-tvm==0.27.*" "apache-tvm-ffi<0.1.15" xgboost-cpu cloudpickle psutil

bench: build
	for peer in $(PEERS); do $(PY) -m pip install --quiet "$$peer" || echo "$$peer is not installable here"; done
	-$(PY) -m benchmarks.tvm_peer
	$(PY) -m benchmarks.kernels
	$(PY) -m benchmarks.ops --isa native,avx2
	$(PY) -m benchmarks.models --threads 1,2 --readme README.md
	$(PY) -m benchmarks.models --isa avx2 --threads 1
	$(PY) -m benchmarks.scaling --threads 1,2
	-$(PY) -m benchmarks.cost --isa native,avx2
	-$(PY) -m benchmarks.goals

clean:
	rm -rf build demo-out lutc/_runtime*.so lutc/passes
