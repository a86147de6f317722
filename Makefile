# The habitual commands. `make check` is what .ci/run asks of a change, without the empty environment.
.PHONY: check test slow bench docs format lock lowest audit dist coverage mutants flakes

check:
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	pytest

test:
	pytest

slow:
	pytest -m slow

bench:
	python benchmarks/attacks.py
	python benchmarks/lrp.py

docs:
	pytest tests/test_docs.py

format:
	ruff check --fix .
	ruff format .

# fails under 90 % of the branches; what it leaves behind tells `make mutants` which tests run which line
coverage:
	pytest --cov --cov-context=test --cov-report=term:skip-covered --junitxml=.coverage.xml

mutants:
	python benchmarks/mutants.py

# files in another order, tests in another order within their file, where they share a fixture
flakes:
	for seed in 1 2 3 4 5; do pytest --random-order --random-order-seed=$$seed --no-loadscope-reorder || exit 1; done

# the versions that .ci/run installs, and the lowest that pyproject.toml permits
lock:
	python requirements/lock.py

# the fast tests on the lowest versions; what these say of newer ones beneath them is not ours
lowest:
	python -m venv --clear build/lowest
	build/lowest/bin/python -m pip install -c requirements/lowest.txt ".[test]"
	build/lowest/bin/python -m pytest --tb=native -W ignore::DeprecationWarning -W ignore::FutureWarning \
		-W ignore::PendingDeprecationWarning

# known vulnerabilities; asks a database over the network, and fails where that does not answer for everything
audit:
	pip-audit --strict --no-deps --disable-pip -r requirements/ci.txt

dist:
	python -m build
	twine check --strict dist/*
