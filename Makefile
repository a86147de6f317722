# The habitual commands. `make check` is what .ci/run asks of a change, without the empty environment.
.PHONY: check test slow bench docs format

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
