# Two commands do everything on a fresh machine with Python 3.10 to 3.13:  make demo   make test
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv

.PHONY: demo test lint clean

demo: $(VENV)/.demo
	$(VENV)/bin/lampq demo

test: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml requirements/demo.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet -r requirements/demo.txt
	$(VENV)/bin/pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.demo requirements/dev.txt requirements/dev-no-deps.txt
	$(VENV)/bin/pip install --quiet -r requirements/dev.txt
	$(VENV)/bin/pip install --quiet --no-deps -r requirements/dev-no-deps.txt
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
