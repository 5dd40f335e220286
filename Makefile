# make demo | test | lint | docs      each sets up what it needs first, from nothing on Debian
#
# PYTHON=python3.12   interpreter for the environment       ARGS='-k lattice -x'   passed on to pytest
# VENV=.venv          where the environment lives        WORKERS=2         test processes beside one another

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= 2
BIN := $(VENV)/bin
OUT := demo-out

# A virtual screen, and what Qt and OpenGL load at run time without saying so.
APT := xvfb xauth libdbus-1-3 libegl1 libfontconfig1 libgl1 libgl1-mesa-dri libglib2.0-0 libopengl0 \
	libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 \
	libxcb-render0 libxcb-shape0 libxcb-sync1 libxcb-xfixes0 libxcb-xkb1 libxkbcommon-x11-0

# Without a screen the demo runs on a virtual one, and does not wait in a window nobody sees.
NO_SCREEN := $(if $(filter Linux,$(shell uname -s)),$(if $(DISPLAY)$(WAYLAND_DISPLAY),,yes))
ON_SCREEN := $(if $(NO_SCREEN),xvfb-run -a -s '-screen 0 1600x1000x24')
DEMO := $(ON_SCREEN) $(BIN)/napari-lfm demo --out $(OUT) $(if $(NO_SCREEN),--no-gui)

.PHONY: help demo test lint format docs setup clean
help:
	@sed -n '1,4s/^# \{0,1\}//p' Makefile

demo: setup
	$(DEMO)

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

setup: $(VENV)/.system $(VENV)/.installed

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || [ "$$(id -u)" != 0 ] || \
		{ apt-get -qq update && apt-get -qq install -y python3-venv; } </dev/null >/dev/null
	$(PYTHON) -m venv $(VENV)

# Skipped without a word where everything is there or the machine is no Debian; asks for nothing.
$(VENV)/.system: Makefile | $(VENV)/bin/python
	@missing=; \
	if command -v dpkg-query >/dev/null; then for p in $(APT); do \
		dpkg-query -W -f='$${Status}\n' $$p $${p}t64 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; fi; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ]; then \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing; } \
			</dev/null >/dev/null || echo "Could not install:$$missing" >&2; \
	elif [ -n "$$missing" ]; then \
		echo "For windows and tests without a screen: sudo apt-get install$$missing"; \
	fi
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(OUT) dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
