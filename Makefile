# Two commands do everything on a fresh machine with Python 3.10 to 3.13:  make demo   make test
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv

.PHONY: demo test docs browser clean

demo: $(VENV)/.demo
	$(VENV)/bin/lampq demo

test: $(VENV)/.dev browser
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

# The documents as a site in build/site; whatever leads nowhere fails it.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml requirements/demo.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet -r requirements/demo.txt
	$(VENV)/bin/pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.demo requirements/dev.txt requirements/docs.txt requirements/dev-no-deps.txt
	$(VENV)/bin/pip install --quiet -r requirements/dev.txt
	$(VENV)/bin/pip install --quiet --no-deps -r requirements/dev-no-deps.txt
	touch $@

# The tests open the report page in a real browser, and fail where there is none.
browser: | $(VENV)/bin/pip
	@requirements/chromium.sh $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info
