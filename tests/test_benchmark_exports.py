"""What ``benchmarks/exports.py`` does and keeps."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not in a source distribution")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import exports

    return exports


def test_a_network_of_a_number_is_always_the_same(benchmark):
    first, again, other = (benchmark.network_of("micro", number) for number in (3, 3, 4))
    assert first.architecture == again.architecture
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert other.architecture != first.architecture


def test_the_benchmark_goes_on_where_it_was_interrupted(benchmark, tmp_path, monkeypatch):
    out = tmp_path / "exports.md"
    common = ["exports.py", "--formats", "module,torchscript", "--spaces", "micro", "--out", str(out)]
    for networks in (1, 2):
        monkeypatch.setattr(sys, "argv", [*common, "--networks", str(networks)])
        benchmark.main()
    done = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert [(r["number"], r["format"]) for r in done] == [(n, f) for n in (0, 1) for f in ("module", "torchscript")]
    assert all(r["difference"] < 1e-4 for r in done)
    assert "Of 4 exports 4 were proved" in out.read_text()
    assert "| micro | module | 2 | 0 |" in out.read_text()


def test_a_failure_is_kept_with_its_words(benchmark):
    results = [
        {"space": "micro", "number": 0, "format": "onnx", "difference": 1e-7, "bytes": 5_000, "seconds": 2.0},
        {"space": "micro", "number": 1, "format": "onnx", "error": "row 3 cannot", "seconds": 4.0},
    ]
    assert "| micro | onnx | 2 | 1 | 1.0e-07 | 4.0 | 5 |" in benchmark.table(results)
    assert benchmark.failures(results) == "- micro 1, onnx: row 3 cannot"
