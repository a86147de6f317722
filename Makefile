# The habitual commands. `make check` is what .ci/run asks of a change, without the empty environment.
.PHONY: check test slow bench docs format coverage mutants flakes

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
