# Everything is installed into .venv, by the targets themselves: `make demo` on a fresh clone works.

PYTHON ?= python3
BASE ?= HEAD~1
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Workers take whole files and groups of tests, in the order that tests/conftest.py puts them in.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadgroup --no-loadscope-reorder
SOURCES := setup.py pyproject.toml $(wildcard fastgru/*.pyx fastgru/*.pxd include/fastgru/*.h src/*.c src/*.h)

.PHONY: demo test check sanitize free-threaded c-library lint docs browse bench compare race dist lock audit clean

# One thread of OpenBLAS and of OpenMP (PyTorch) for each worker: their threads spin while they wait, and workers take
# all cores.
test check sanitize free-threaded: export OPENBLAS_NUM_THREADS := 1
test check sanitize free-threaded: export OMP_NUM_THREADS := 1

demo: $(VENV)/demo $(VENV)/built
	$(BIN)/python examples/denoise

test: $(VENV)/test $(VENV)/built
	$(PYTEST)

# After each change: what computes, without TensorFlow and other processes.
check: $(VENV)/test $(VENV)/built
	$(PYTEST) -m "not large and not outside" tests/engine tests/layer tests/networks

# Under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy: the tests of what computes and of what hands
# to it. Not those against TensorFlow, which does not run under them, nor those that run other programs.
SANITIZED := $(patsubst %,tests/%.py,$(addprefix engine/test_,activations bits int8 packed plan) \
    $(addprefix layer/test_,config default_state dropout gru int8_weights lengths validate weights_dtype) \
    $(addprefix networks/test_,models model_streams streaming threads))

sanitize: $(VENV)/test $(VENV)/build
	rm -rf build/sanitize && mkdir -p build/sanitize
	cp -r setup.py pyproject.toml README.md LICENSE fastgru include src tests build/sanitize
	rm -f build/sanitize/fastgru/*.so build/sanitize/fastgru/*.c
	cd build/sanitize && CC=tests/engine/sanitizing-gcc $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace
	cd build/sanitize && LD_PRELOAD=$$(gcc -print-file-name=libasan.so) \
	    ASAN_OPTIONS=detect_leaks=0:handle_sigill=1 $(CURDIR)/$(PYTEST) -m "not large" $(SANITIZED)

# On a Python without a GIL, in a copy: the tests of threads and processes, then those of calls, each in four threads
# at once. No framework has to be there.
PYTHON314T ?= python3.14t
FREE := build/free-threaded
THREADED := $(patsubst %,tests/networks/test_%.py,changes threads interpreters num_threads batcher processes)
IN_FOUR := $(patsubst %,tests/%.py,layer/test_gru layer/test_states layer/test_lengths networks/test_streaming)

free-threaded:
	$(PYTHON314T) -c 'import sys; sys.exit(getattr(sys, "_is_gil_enabled", bool)() is not False and "it has a GIL")'
	rm -rf $(FREE) && mkdir -p $(FREE)
	$(PYTHON314T) -m venv $(FREE)/venv
	$(FREE)/venv/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(FREE)/venv/bin/python -m pip install --quiet --prefer-binary --group free-threaded
	cp -r setup.py pyproject.toml README.md LICENSE fastgru include src tests docs $(FREE)
	rm -f $(FREE)/fastgru/*.so $(FREE)/fastgru/*.c
	cd $(FREE) && venv/bin/python setup.py --quiet build_ext --inplace
	cd $(FREE) && venv/bin/python -m pytest $(THREADED)
	cd $(FREE) && venv/bin/python -m pytest --parallel-threads=4 $(IN_FOUR)

# The engine for C and C++: a static and a shared library, the header, and what pkg-config wants to know.
C_LIBRARY := build/c-library
HEADER := $(C_LIBRARY)/include/fastgru/fastgru.h
OBJECTS := $(patsubst src/%.c,$(C_LIBRARY)/objects/%.o,$(wildcard src/*.c))
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' fastgru/__init__.py)
CFLAGS ?= -O3

c-library: $(addprefix $(C_LIBRARY)/lib/,libfastgru.a libfastgru.so pkgconfig/fastgru.pc)

$(HEADER): $(wildcard include/fastgru/*.h)
	mkdir -p $(@D) $(C_LIBRARY)/objects $(C_LIBRARY)/lib/pkgconfig
	cp $^ $(@D)

$(C_LIBRARY)/objects/%.o: src/%.c $(wildcard src/*.h) $(HEADER)
	$(CC) -std=gnu11 $(CFLAGS) -ffp-contract=off -fno-math-errno -fPIC -I$(C_LIBRARY)/include -c $< -o $@

$(C_LIBRARY)/lib/libfastgru.a: $(OBJECTS)
	rm -f $@
	$(AR) rcs $@ $^

$(C_LIBRARY)/lib/libfastgru.so: $(OBJECTS)
	$(CC) -shared -Wl,-soname,$(@F) $^ -o $@

$(C_LIBRARY)/lib/pkgconfig/fastgru.pc: $(HEADER) fastgru/__init__.py
	printf '%s\n' 'prefix=$${pcfiledir}/../..' 'Name: fastgru' 'Version: $(VERSION)' \
	    'Description: The GRU layer of Keras, for inference on CPUs' 'Cflags: -I$${prefix}/include' \
	    'Libs: -L$${prefix}/lib -Wl,-rpath,$${prefix}/lib -lfastgru -pthread' > $@

lint: $(VENV)/lint $(VENV)/built
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/cython-lint fastgru
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml $(addprefix fastgru.,_plans _core _kernels _calls _streams _pool _tensors)

docs: $(VENV)/docs $(VENV)/built
	$(BIN)/python -m sphinx --quiet --nitpicky --fail-on-warning --keep-going -d build/doctrees docs build/docs

# Needs chromium on the PATH.
browse: $(VENV)/browse docs
	$(BIN)/python docs/browser.py

bench: $(VENV)/bench $(VENV)/built
	$(BIN)/python -m benchmarks

# Builds both commits: what became slower from BASE to HEAD.
compare: $(VENV)/bench
	$(BIN)/python -m benchmarks --compare $(BASE)

race: $(VENV)/bench $(VENV)/built
	$(BIN)/python -m benchmarks.race

# The sdist, and a wheel of it for this Python, from the versions in requirements/build.txt. Any machine with the same
# compiler and Python gets the same bytes.
LOCKED := --require-hashes --only-binary :all: --requirement requirements/build.txt

dist:
	rm -rf build/dist && $(PYTHON) -m venv build/dist
	build/dist/bin/python -m pip install --quiet $(LOCKED)
	build/dist/bin/python -m build --no-isolation

# Newer versions into requirements/build.txt, for all systems and Pythons.
lock: $(VENV)/lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --group build --generate-hashes \
	    --no-header --no-annotate --output-file requirements/build.txt

# Known vulnerabilities in what builds, and the form of the wheels' lists of components. Needs the network, and make dist.
audit: $(VENV)/audit
	$(BIN)/pip-audit --strict --require-hashes --requirement requirements/build.txt
	$(BIN)/python tools/check_sbom.py dist/*.whl

clean:
	rm -rf $(VENV) build dist *.egg-info fastgru/*.so fastgru/*.c .asv

$(VENV)/created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fastgru needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	touch $@

# one stamp per dependency group of pyproject.toml
$(VENV)/build $(VENV)/demo $(VENV)/test $(VENV)/lint $(VENV)/docs $(VENV)/browse $(VENV)/bench \
$(VENV)/lock $(VENV)/audit: \
    $(VENV)/created pyproject.toml
	$(BIN)/python -m pip install --quiet --group $(@F)
	touch $@

$(VENV)/built: $(VENV)/build $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@
