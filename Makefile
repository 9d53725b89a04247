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
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" -eq 0 ]; then root=; elif command -v sudo > /dev/null; then root=sudo; else \
	  echo "make test: install Chromium (the tests open the report page in it), or run as root" >&2; exit 2; fi; \
	command -v apt-get > /dev/null || { echo "make test: install Chromium by hand; there is no apt-get" >&2; exit 2; }; \
	$$root apt-get -o Acquire::Retries=3 update -qq && \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null

clean:
	rm -rf $(VENV) build dist *.egg-info
