"""The clock's programs on small data: what they ask, what they count, and that they go on where cut off."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys import prepare
from recsys.benchmarks import accuracy, repeat_bias
from recsys.benchmarks.clock import recipes as clock_recipes
from recsys.benchmarks.clock import study
from recsys.benchmarks.clock.counts import count_ranks
from recsys.benchmarks.clock.errors import measure
from recsys.benchmarks.clock.kernel import compare
from recsys.benchmarks.clock.requests import by_user, draw_requests, gains, rank_requests
from recsys.benchmarks.clock.rivals import gaussian_sums, kernels
from recsys.datasets.synthetic.logs import clock_log
from recsys.datasets.times.local_times import local_times
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.errors import RunError
from recsys.kernels.clock import clock_sums


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("study") / "log.csv"
    clock_log(40, 20, mean_length=20, utc_offset_hours=-5).frame.write_csv(path)
    return path


def test_requests_are_test_events_with_all_before_them_known(log: Path, tmp_path: Path) -> None:
    store = prepare(log, tmp_path / "data", split="temporal", time_zone="-05:00")
    requests = draw_requests(store, 3)
    assert np.bincount(requests.user).max() == 3
    assert (requests.position >= np.asarray(store.test_start)[requests.user]).all()
    assert (requests.position < np.asarray(store.offsets)[requests.user + 1]).all()
    assert (requests.start < requests.position).all()
    local = local_times(store)
    assert local is not None
    assert requests.hour.tolist() == (local[requests.position] % 86_400 // 3600).tolist()
    again = draw_requests(store, 3)
    assert requests.digest == again.digest != draw_requests(store, 2).digest
    means = by_user(gains(np.array([1] * len(requests.item))), requests)
    assert len(means) == len(set(requests.user.tolist()))
    assert (means == 1).all()


def test_counting_finds_habits_of_the_hour(log: Path, tmp_path: Path) -> None:
    store = prepare(log, tmp_path / "data", split="temporal", time_zone="-05:00")
    requests = draw_requests(store, 10)
    reached = {name: gains(ranks).mean() for name, ranks in count_ranks(store, requests).items()}
    assert reached["own counts, recent, near the hour"] > 1.2 * reached["own counts, recent"]


def test_requests_are_ranked_with_the_repeat_bias(log: Path, tmp_path: Path) -> None:
    store = prepare(log, tmp_path / "data", split="temporal", time_zone="-05:00")
    requests = draw_requests(store, 3)
    options = {"d_model": 16, "n_layers": 1, "max_length": 8, "repeat_bias": 4}
    encoder = build_encoder("sasrec", store.n_items, encoder_config("sasrec", options))
    assert encoder.repeat_bias is not None
    plain = rank_requests(encoder, store, requests)
    with torch.no_grad():
        encoder.repeat_bias.weight.fill_(100.0)
    lifted = rank_requests(encoder, store, requests)
    items = np.asarray(store.items)
    for row, (start, position) in enumerate(zip(requests.start, requests.position, strict=True)):
        window = set(items[max(start, position - 8) : position].tolist())
        if requests.item[row] in window:
            assert lifted[row] <= len(window)
        else:
            assert lifted[row] >= max(plain[row], len(window) + 1)


def test_a_study_goes_on_and_reports(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "ENCODER", {"d_model": 16, "n_layers": 1, "max_length": 16})
    docs, out = tmp_path / "docs.md", tmp_path / "summary.json"
    docs.write_text(f"before\n{study.BEGIN}\nold\n{study.END}\nafter\n")
    arguments = [
        str(log),
        "--time-zone=-05:00",
        "--encoders=mamba",
        "--variants=off,pool,hours",
        "--seeds=1",
        "--epochs=1",
        "--per-user=3",
    ]
    arguments += [f"--runs={tmp_path / 'runs'}", f"--out={out}", f"--docs={docs}"]
    study.main(arguments)
    first = capsys.readouterr().out
    assert first.count("best epoch") == 3
    study.main(arguments)
    assert capsys.readouterr().out.count("best epoch") == 0
    summary = json.loads(out.read_text())
    assert [row["variant"] for row in summary["rows"]] == ["off", "pool", "hours"]
    pool = summary["rows"][1]
    test = pool["against_off"]
    assert test["low"] <= test["difference"] <= test["high"]
    assert test["difference"] == pytest.approx(pool["ndcg@10"] - summary["rows"][0]["ndcg@10"])
    assert sum(summary["hours"]["requests"]) == summary["requests"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert docs.read_text().startswith("before\n")
    assert "| mamba | clock | 1 |" in docs.read_text()
    assert "old" not in docs.read_text()
    with pytest.raises(RunError, match="other requests"):
        study.main([*arguments, "--report", "--per-user=2"])


def test_the_recurrence_is_near_what_it_stands_for() -> None:
    for record in measure():
        assert record["kernel"] < 0.02
        if record["weight"] > 50:
            assert record["pooled"] < 0.05
            assert record["rounding"] < 1e-5


def test_the_rival_is_the_same_sum_of_exact_gaussians() -> None:
    draw = torch.Generator().manual_seed(0)
    times = torch.randint(600, 14_400, (1, 60), generator=draw).cumsum(1)
    asked = torch.cat((times[:, 1:], times[:, -1:] + 3600), dim=1)
    values, mix, rate = torch.ones(1, 60, 3), torch.full((4,), 0.25), torch.tensor(0.02)
    exact = gaussian_sums(values, times, asked, mix, rate)[0]
    ours = clock_sums(
        values[0],
        times[0],
        asked[0],
        torch.tensor([0, 60], dtype=torch.int32),
        coefficients=mix @ kernels(),
        rate=rate,
        max_length=60,
    )
    assert float((exact - ours).norm() / exact.norm()) < 0.02
    found = compare(64, True, 1)
    assert set(found["forms"]) == {"recurrent", "direct", "torch Gaussian"}


SMALL_RUN = """
model = "mamba"
seeds = [0]

[encoder]
d_model = 16
n_layers = 1
max_length = 12
repeat_by = "{}"

[training]
epochs = 1
batch_events = 256
"""


def test_runs_of_recipes_are_asked_the_same_requests(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recipes" / "toy"
    folder.mkdir(parents=True)
    sha = hashlib.sha256(log.read_bytes()).hexdigest()
    prepared = '[prepare]\nsplit = "temporal"\ntime_zone = "-05:00"\n'
    (folder / "dataset.toml").write_text(f'name = "toy"\nabout = "made"\nsha256 = "{sha}"\n{prepared}')
    (folder / "mamba-clock.toml").write_text(SMALL_RUN.format("clock"))
    (folder / "mamba-last.toml").write_text(SMALL_RUN.format("last"))
    runs, out = tmp_path / "runs", tmp_path / "asked.json"
    asked = ["toy", f"--runs={runs}", f"--data={log}", f"--recipes={folder.parent}", f"--out={out}"]
    with pytest.raises(RunError, match="no finished run of toy"):
        clock_recipes.main(asked)
    accuracy.run(
        ["toy"], folder=folder.parent, runs=runs, data=log, results=tmp_path / "results", device="cpu"
    )
    capsys.readouterr()
    clock_recipes.main(asked)
    table, summary = capsys.readouterr().out, json.loads(out.read_text())
    assert table == clock_recipes.recipes_table(summary)
    assert [row["recipe"] for row in summary["rows"]] == ["mamba-clock", "mamba-last"]
    one, other = summary["rows"]
    assert one["against_last"]["difference"] == pytest.approx(one["ndcg@10"] - other["ndcg@10"])
    assert "against_last" not in other
    assert one["against_counts"]["difference"] == pytest.approx(one["ndcg@10"] - summary["counts"]["ndcg@10"])
    assert one["interval"][0] < one["ndcg@10"] < one["interval"][1]
    store = prepare(log, tmp_path / "again", split="temporal", time_zone="-05:00")
    requests = draw_requests(store, 10)
    counted = gains(count_ranks(store, requests)["own counts, recent, near the hour"])
    assert summary["counts"]["repeated"] == pytest.approx(counted[requests.repeated].mean())
    assert summary["counts"]["new"] == pytest.approx(counted[~requests.repeated].mean())


def test_what_the_repeat_bias_costs_is_measured_on_all_sides() -> None:
    found = repeat_bias.compare("mamba", repeat_bias.local_store(20), 1, 32)
    assert set(found["rivals"]) == {"none", "count", "clock"}
    assert all(rival["ratio"]["median"] > 0 for rival in found["rivals"].values())
