"""The benchmark programs at sizes that prove what they compute, not how fast."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.benchmarks import training
from recsys.benchmarks.kernels import limit_of, run
from recsys.benchmarks.kernels.case import Case, Work, both_ways
from recsys.benchmarks.kernels.padding import pad, unpad
from recsys.benchmarks.kernels.roofline import plot
from recsys.benchmarks.kernels.shapes import BEAUTY, DENSE, LONG, ML_1M, Batch, draw_lengths
from recsys.benchmarks.report import lines
from recsys.benchmarks.retrieval import kinds
from recsys.benchmarks.timing import alternate, spread, summarize
from recsys.errors import ArgumentError
from tests.command_line import call

CPU = torch.device("cpu")


def test_the_shapes_have_the_means_and_limits_they_claim() -> None:
    for shape, mean, most in ((ML_1M, 165, 200), (BEAUTY, 9, 50), (DENSE, 200, 200), (LONG, 384, 512)):
        lengths = draw_lengths(shape, 40_000)
        assert abs(lengths.mean() - mean) < 0.05 * mean
        assert lengths.max() == most
        assert abs(lengths.sum() - 40_000) < 1_000
        assert np.array_equal(lengths, draw_lengths(shape, 40_000))


def test_padding_puts_each_event_in_its_row_and_takes_it_back() -> None:
    batch = Batch.of("some", np.array([2, 0, 3, 1]), CPU)
    x = torch.arange(1.0, 7.0)[:, None]
    assert pad(x, batch)[..., 0].tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5], [6, 0, 0]]
    assert torch.equal(unpad(pad(x, batch), batch.places()), x)
    assert batch.pairs(causal=True) == 3 + 6 + 1
    assert batch.pairs(causal=False) == 4 + 9 + 1
    rows = torch.cat([rows for rows, _ in batch.buckets(edges=(1, 2, 4))])
    assert sorted(rows.tolist()) == list(range(6))


def test_sides_take_turns_and_ratios_are_taken_round_by_round() -> None:
    calls: list[str] = []
    sides = {name: lambda name=name: calls.append(name) for name in ("ours", "theirs")}
    times = alternate(sides, device=CPU, seconds=0.0, least=4)
    assert calls == ["ours", "theirs", "theirs", "ours"] * 2
    assert {name: len(found) for name, found in times.items()} == {"ours": 4, "theirs": 4}
    summary = summarize({"ours": [1.0, 2.0, 1.0], "theirs": [2.0, 2.0, 3.0]})
    assert summary["ours_ms"] == {"median": 1000, "min": 1000, "max": 2000}
    assert summary["rivals"]["theirs"]["ratio"] == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_both_ways_time_a_gradient_that_is_right() -> None:
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    directions = both_ways({"ours": (lambda x: x * x, [x], torch.tensor([1.0, 10.0]))}, CPU)
    assert directions["forward"]["ours"]().tolist() == [4, 9]
    assert directions["forward+backward"]["ours"]()[0].tolist() == [4, 60]
    on_gpu = both_ways({"ours": (lambda x: x * x, [x], torch.tensor([1.0, 10.0]))}, torch.device("cuda"))
    for _ in range(2):
        assert on_gpu["backward"]["ours"]()[0].tolist() == [4, 60]


@pytest.mark.slow
def test_every_rival_on_the_cpu_computes_what_we_compute() -> None:
    result = run(device="cpu", only="scan,attention,conv,pointwise,repeats", seconds=0.1, events=900)
    assert {entry["operation"].split(",")[0] for entry in result["comparisons"]} == {
        "scan",
        "attention",
        "conv",
        "pointwise",
        "repeats",
    }
    rivals = set()
    for entry in result["comparisons"]:
        assert "failures" not in entry, entry
        rivals |= set(entry["rivals"])
    assert rivals == {
        "torch, event by event",
        "SDPA, already padded",
        "SDPA, padding and unpadding",
        "SDPA, already in buckets",
        "torch conv1d, already padded",
        "torch conv1d, padding and unpadding",
        "torch, op by op",
        "torch, padded",
    }
    wanted = {
        (entry["operation"], entry["target"]["rival"], entry["target"]["ratio"])
        for entry in result["comparisons"]
        if "target" in entry
    }
    assert wanted == {
        ("scan", "torch, event by event", 8.0),
        ("attention, causal", "SDPA, already padded", 1.0),
        ("attention, causal", "SDPA, already padded", 3.0),
        ("conv", "torch conv1d, already padded", 3.0),
    }
    assert len(lines(result)) > len(result["comparisons"])


def test_a_rival_that_computes_something_else_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "silu", lambda x: 1.1 * torch.sigmoid(x) * x)
    result = run(device="cpu", only="conv", seconds=0.1, events=900)
    forward = next(entry for entry in result["comparisons"] if entry["direction"] == "forward")
    assert forward["rivals"] == {}
    assert all("apart from ours" in reason for reason in forward["failures"].values())


def test_training_is_timed_from_a_log_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        training, "preset", lambda name, which: {"encoder": {"d_model": 16, "max_length": 32}}
    )
    store = training.made_store(users=12, items=60)
    assert store.n_events == (store.offsets[1:] - store.offsets[:-1]).sum()
    result = training.run(device="cpu", epochs=2, store=store)
    assert [entry["encoder"] for entry in result["encoders"]] == ["sasrec", "bert4rec", "mamba"]
    assert all(entry["epochs"] == 2 and entry["events_per_s"]["min"] > 0 for entry in result["encoders"])
    assert len(lines(result)) == 4


def test_kinds_of_index_are_compared_and_exact_ones_agree() -> None:
    result = kinds.run(sizes=[500], seconds=0.0, kinds=("exact", "flat"))
    assert [entry["form"] for entry in result["searches"]] == ["one batch", "one by one"]
    for entry in result["searches"]:
        if entry["failures"]:
            assert "faiss" in str(entry["failures"]).lower()
        else:
            assert entry["recall"]["flat"] == 1.0
            assert entry["rivals"]["flat"]["ratio"]["median"] > 0


def test_the_fraction_is_of_the_limit_that_the_work_meets_first(tmp_path: Path) -> None:
    limits = {"copy_bytes": 1e3, "bfloat16_flops": 1e6, "float32_flops": 1e5, "exps": 1e4}
    entries = []
    for work, bound in (
        (Work(bytes=500.0), "memory"),
        (Work(bytes=1.0, flops=5e5), "matrix products"),
        (Work(bytes=1.0, exps=5e3), "exponentials"),
    ):
        case = Case("conv", "some (1 x 1)", 64, "bfloat16", "forward", 1, {}, work=work)
        limit = limit_of(case, 2.0, limits)
        assert limit["by"] == bound
        assert limit["fraction"] == pytest.approx(0.25)
        entries.append(
            {
                "operation": case.operation,
                "direction": case.direction,
                "shape": case.shape,
                "d_model": 64,
                "dtype": case.dtype,
                "ours_ms": spread([2000.0]),
                "limit": limit,
            }
        )
    paths = plot({"comparisons": entries, "limits": limits, "machine": {"gpu": "none"}}, tmp_path / "new")
    assert [path.suffix for path in paths] == [".png", ".svg"]
    assert all(path.stat().st_size > 5_000 for path in paths)


def test_wrong_options_are_refused_in_words() -> None:
    with pytest.raises(ArgumentError, match="operation 'scam' has no comparison: choose of scan, conv"):
        run(device="cpu", only="scam")
    with pytest.raises(ArgumentError, match="device 'tpu': choose auto, cpu or cuda"):
        run(device="tpu", only="conv")


def test_the_commands_print_one_json_object_and_write_it(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    options = ("--only", "conv", "--events", 1000, "--seconds", 1, "--device", "cpu")
    done = call("bench", "kernels", *options, "--out", path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(path.read_text())
    assert json.loads(done.stdout)["benchmark"] == "kernels"
    done = call("bench", "retrieval", "--items", "200", "--seconds", "0.1")
    assert done.returncode == 0
    assert "200 items, 64 queries in one batch" in done.stdout


def test_mistakes_on_the_command_line_are_one_line() -> None:
    for arguments, message in (
        (("kernels", "--check", "x"), "--write, --check and --all go with --compile-only"),
        (("kernels", "--compile-only", "--check", "x", "--write", "y"), "pass either --write PATH"),
        (("retrieval", "--items", "ten"), "--items 'ten': write sizes of 100 or more"),
    ):
        done = call("bench", *arguments)
        assert done.returncode == 2
        assert not done.stdout
        assert done.stderr.startswith("Error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
