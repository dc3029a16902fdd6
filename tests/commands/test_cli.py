"""The command line as a user meets it; a process of its own where that matters."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.command_line import TINY, call, call_json, start

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, log: pl.DataFrame) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    log.write_csv(folder / "log.csv")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    out = folder / "run"
    report = call_json("train", folder / "log.csv", "--out", out, "--set=training.epochs=2", *TINY)
    assert report["encoder"] == "sasrec"
    assert {"hr@10", "ndcg@10", "mrr@10"} <= set(report["metrics"])
    return out


def test_train_leaves_a_whole_run(run: Path) -> None:
    assert {"config.toml", "run.json", "model.safetensors", "report.json", "plots", "index", "data"} <= {
        p.name for p in run.iterdir()
    }
    report = json.loads((run / "report.json").read_text())
    assert report["protocol"]
    assert report["popularity"]


def test_evaluate_repeats_the_report(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    again = call_json("evaluate", run)
    assert again["metrics"] == report["metrics"]
    assert again["split"] == "test"
    assert set(call_json("evaluate", run, "--k", "3", "--split", "valid")["metrics"]) == {
        "hr@3",
        "ndcg@3",
        "mrr@3",
        "recall@3",
        "precision@3",
        "map@3",
    }


def test_evaluate_ranks_by_a_floor_in_the_models_place(run: Path) -> None:
    reports = {
        name: call_json("evaluate", run, "--floor", name) for name in ("item-knn", "ease", "popularity")
    }
    model = json.loads((run / "report.json").read_text())
    for name, report in reports.items():
        assert report["encoder"] == name
        assert report["popularity"] == model["popularity"]
        own = {**model["protocol"], "notes": report["protocol"]["notes"]}
        assert report["protocol"] == own  # a floor has no bias of the window to note
        assert set(report["protocol"]["notes"]) < set(model["protocol"]["notes"])
    kept = reports["popularity"]["metrics_seen_kept"]
    assert kept == model["popularity"]["kept"]
    assert len({json.dumps(r["metrics"]) for r in reports.values()}) == 3
    assert "item-knn on" in call("evaluate", run, "--floor", "item-knn").stdout


def test_evaluate_averages_over_tie_orders(folder: Path) -> None:
    tied = folder / "tied.csv"
    rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    events = [f"{user},{item},{int(time) // 20_000 * 20_000}" for user, item, time in rows[1:]]
    tied.write_text("\n".join([",".join(rows[0]), *events]) + "\n")
    out = folder / "tied-run"
    plain = call_json("train", tied, "--out", out, "--set=training.epochs=1", *TINY)
    averaged = call_json("evaluate", out, "--tie-orders", "3")
    facts = averaged["protocol"]["tie_orders"]
    assert facts["orders"] == 3
    assert facts["several_targets"] == plain["protocol"]["tie_share"] > 0.5
    assert averaged["metrics"] != plain["metrics"]
    assert averaged["metrics"] == call_json("evaluate", out, "--tie-orders", "3")["metrics"]
    assert (
        call_json("evaluate", out, "--floor", "ease", "--tie-orders", "2")["protocol"]["tie_orders"]["orders"]
        == 2
    )
    assert "Tie orders:   mean of 3" in call("evaluate", out, "--tie-orders", "3").stdout
    order = folder / "order-run"
    call_json("prepare", tied, "--out", folder / "order", "--time-unit", "order")
    call_json("train", folder / "order", "--out", order, "--set=training.epochs=1", *TINY)
    refused = call("evaluate", order, "--tie-orders", "3")
    assert refused.returncode == 2
    assert "order of events alone" in refused.stderr


def test_recommend_answers_users_and_histories(run: Path, tmp_path: Path) -> None:
    answer = call_json("recommend", run, "--user", "3", "--k", "4")
    assert answer["user"] == "3"
    assert len(answer["items"]) == 4
    assert set(answer["items"][0]) == {"item", "score"}
    allow = tmp_path / "allow.txt"
    allow.write_text("7\n8\n\n9\n")
    deny = tmp_path / "deny.txt"
    deny.write_text("8\n")
    answer = call_json("recommend", run, "--history", "1, 2,9", "--allow", allow, "--deny", deny)
    assert [item["item"] for item in answer["items"]] == [7]
    answer = call_json("recommend", run, "--history", "1,2,9", "--allow", allow, "--include-seen")
    assert {item["item"] for item in answer["items"]} == {7, 8, 9}


def test_an_answer_imports_no_compiler_and_no_plotting(run: Path) -> None:
    # Each costs a share of a second of processor time at every call.
    code = (
        "import atexit, sys\n"
        "heavy = ('torch._dynamo', 'matplotlib', 'sympy', 'pandas', 'rich')\n"
        "atexit.register(lambda: print(*[name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        "from recsys.commands.app import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "recommend", str(run), "--user", "3"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.stderr.strip() == ""
    assert len(ended.stdout.splitlines()) == 11


def test_recommend_takes_the_times_of_a_history(folder: Path) -> None:
    out = folder / "timed"
    options = ["--set=training.epochs=2", "--set=encoder.time_bias=64", *TINY]
    call_json("train", folder / "log.csv", "--out", out, *options)
    refused = call("recommend", out, "--history", "1,2,9")
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: this model reads the time of every event: pass --times with")
    near, far = (
        call_json("recommend", out, "--history", "1,2,9", "--times", times)
        for times in ("3600,7200,10800", "3600, 7200,21600")
    )
    assert near["items"] != far["items"]
    assert len(call_json("recommend", out, "--user", "3")["items"]) == 10


def test_a_time_bias_on_a_log_of_order_alone_is_one_line(folder: Path) -> None:
    ordered = folder / "ordered"
    call_json("prepare", folder / "log.csv", "--out", ordered, "--time-unit", "order")
    result = call("train", ordered, "--out", folder / "no-times", "--set=encoder.time_bias=64", *TINY)
    assert result.returncode == 2
    assert "carries order alone" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_index_can_be_built_anew_even_over_a_damaged_one(run: Path) -> None:
    (run / "index" / "manifest.json").write_text("{")
    assert call_json("index", run, "--kind", "exact")["kind"] == "exact"
    assert len(call_json("recommend", run, "--user", "3")["items"]) == 10


def test_prepare_reports_and_train_takes_the_folder(folder: Path) -> None:
    meta = call_json("prepare", folder / "log.csv", "--out", folder / "prepared", "--min-events", "3")
    assert meta["path"] == str(folder / "prepared")
    report = call_json(
        "train",
        folder / "prepared",
        "--out",
        folder / "from-prepared",
        "--encoder=mamba",
        "--set=training.epochs=1",
        "--set=encoder.d_model=16",
    )
    assert report["encoder"] == "mamba"


def test_text_output_shows_table_protocol_and_curves(folder: Path) -> None:
    result = call("train", folder / "log.csv", "--out", folder / "text", "--set=training.epochs=1", *TINY)
    assert result.returncode == 0
    for word in ("ndcg@10", "popularity", "seen kept", "Ties:"):
        assert word in result.stdout, word
    for word in ("parameters", "padding avoided", "Trained 1 epochs", "plots/training.png", "Index:"):
        assert word in result.stderr, word


def test_datasets_names_the_known_logs() -> None:
    names = {d["name"] for d in call_json("datasets")["datasets"]}
    assert names == {"ml-100k", "ml-1m"}
    assert "ml-100k" in call("datasets").stdout


def test_help_describes_every_command() -> None:
    text = call("--help").stdout
    for command in ("datasets", "prepare", "train", "evaluate", "index", "recommend", "score"):
        assert command in text
        described = call(*(["index", "build"] if command == "index" else [command]), "--help")
        assert described.returncode == 0
        assert "--json" in described.stdout
    assert call("--version").stdout.startswith("recsys 0.")


def _bad(folder: Path) -> list[tuple[str, list[Any], str]]:
    run, log, out = folder / "run", folder / "log.csv", folder / "bad"
    return [
        ("missing log", ["train", folder / "no.csv", "--out", out], "no.csv"),
        ("unknown name", ["train", "ml-100", "--out", out], "ml-100k"),
        ("unknown encoder", ["train", log, "--out", out, "--encoder", "sasrek"], "sasrec"),
        ("unknown preset", ["train", log, "--out", out, "--preset", "best"], "tuned"),
        ("unknown key", ["train", log, "--out", out, "--set", "training.epoch=3"], "did you mean 'epochs'"),
        ("bad value", ["train", log, "--out", out, "--set", "training.epochs=many"], "is not an int"),
        ("out of range", ["train", log, "--out", out, "--set", "encoder.dropout=2"], "encoder.dropout"),
        ("not key=value", ["train", log, "--out", out, "--set", "epochs"], "section.key=value"),
        ("missing config", ["train", log, "--out", out, "--config", folder / "no.toml"], "no.toml"),
        ("run exists", ["train", log, "--out", run], "--resume"),
        ("not a run folder", ["train", log, "--out", folder], "is not a run"),
        ("no checkpoint", ["train", log, "--out", folder / "fresh", "--resume"], "no checkpoint"),
        ("no GPU", ["train", log, "--out", out, "--device", "tpu"], "is not auto, cpu or cuda"),
        ("unknown floor", ["evaluate", run, "--floor", "eas"], "did you mean 'ease'"),
        (
            "floor of vectors",
            ["evaluate", run, "--floor", "ease", "--vectors", "latent"],
            "leave out --vectors",
        ),
        ("no run", ["evaluate", folder / "none"], "no such run folder"),
        ("not finished", ["evaluate", folder], "not a run folder"),
        ("bad cut-off", ["evaluate", run, "--k", "ten"], "--k 'ten'"),
        ("cut-off 0", ["evaluate", run, "--k", "0"], "start at 1"),
        ("unknown split", ["evaluate", run, "--split", "dev"], "split"),
        ("unknown protocol", ["evaluate", run, "--protocol", "x"], "recbole"),
        ("unknown user", ["recommend", run, "--user", "9999"], "unknown user '9999'"),
        ("unknown item", ["recommend", run, "--history", "1,x"], "unknown item 'x'"),
        ("neither", ["recommend", run], "either --user ID or --history"),
        ("both", ["recommend", run, "--user", "1", "--history", "1"], "either --user ID or --history"),
        ("times of a user", ["recommend", run, "--user", "1", "--times", "1"], "--times goes with --history"),
        ("bad times", ["recommend", run, "--history", "1", "--times", "noon"], "--times 'noon'"),
        ("k 0", ["recommend", run, "--user", "1", "--k", "0"], "k = 0"),
        ("missing allow-list", ["recommend", run, "--user", "1", "--allow", folder / "no.txt"], "no.txt"),
        ("unknown index", ["index", run, "--kind", "tree"], "tree"),
        ("unknown split", ["prepare", log, "--out", out, "--split", "random"], "leave-one-out"),
        ("missing column", ["prepare", log, "--out", out, "--item-column", "sku"], "sku"),
        ("missing argument", ["train"], "DATA"),
    ]


def test_bad_input_gives_one_line_and_exit_code_2(run: Path, folder: Path) -> None:
    assert run.exists()
    for what, arguments, expected in _bad(folder):
        result = call(*arguments)
        assert result.returncode == 2, (what, result.stderr)
        assert expected in result.stderr, (what, result.stderr)
        assert "Traceback" not in result.stderr, what
        if what != "missing argument":
            assert len(result.stderr.strip().splitlines()) == 1, (what, result.stderr)
        assert result.stdout == "", what
        assert not (folder / "bad").exists() or what == "no GPU", what


def test_a_killed_run_resumes_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    train = ["train", folder / "log.csv", "--set=training.epochs=12", *TINY]
    cut = start(*train, "--out", tmp_path / "cut")
    state = tmp_path / "cut" / "checkpoint" / "state.json"
    deadline = time.monotonic() + 120
    while not state.exists() and cut.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    cut.kill()
    cut.communicate()
    assert cut.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "run.json").exists()
    resumed = call(*train, "--out", tmp_path / "cut", "--resume")
    assert "Resuming after epoch" in resumed.stderr
    whole = call(*train, "--out", tmp_path / "whole")
    assert whole.stderr.count("Trained 12 epochs") == 1
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_a_temporal_split_takes_its_fractions(folder: Path) -> None:
    meta = call_json(
        "prepare",
        folder / "log.csv",
        "--out",
        folder / "temporal",
        "--split=temporal",
        "--valid-fraction=0.2",
        "--test-fraction=0.05",
        "--header",
    )
    assert meta["options"]["split"] == "temporal"
    assert (meta["options"]["valid_fraction"], meta["options"]["test_fraction"]) == (0.2, 0.05)
    assert meta["options"]["header"] is True


def test_an_index_of_any_vectors_is_built_and_evaluated(run: Path) -> None:
    facts = call_json("index", run, "--kind", "exact", "--vectors", "mixed")
    assert facts["vectors"] == "mixed"
    assert 0 < facts["weight"] < 1
    assert facts["bytes"] > 0
    assert len(call_json("recommend", run, "--user", "3")["items"]) == 10
    report = call_json("evaluate", run, "--vectors", "mixed")
    assert report["vectors"] == "mixed"
    assert report["metrics"] != call_json("evaluate", run)["metrics"]
    local = call_json("index", run, "--kind", "exact", "--vectors", "latent", "--aggregate", "local")
    assert local["neighbours"] > 0
    assert len(call_json("recommend", run, "--user", "3")["items"]) == 10
    assert call_json("index", run, "--kind", "exact", "--set", "threads=1")["vectors"] == "embedding"
    for bad, words in (("ef=3", "index.ef"), ("ef_search", "key=value"), ("nprobe=x", "is not an int")):
        refused = call("index", run, "--set", bad)
        assert refused.returncode == 2
        assert words in refused.stderr


def test_everybody_is_scored_into_parts_once(run: Path, tmp_path: Path) -> None:
    report = call_json("score", run, "--out", tmp_path / "parts", "--k", "3", "--part-users", "25")
    assert (report["users"], len(report["parts"]), report["resumed"]) == (60, 3, 0)
    again = call_json("score", run, "--out", tmp_path / "parts", "--k", "3", "--part-users", "25")
    assert again["resumed"] == 3
    frame = pl.concat([pl.read_parquet(tmp_path / "parts" / name) for name in report["parts"]])
    assert frame["user_id"].n_unique() == 60
    pl.DataFrame({"user_id": [7, 3]}).write_parquet(tmp_path / "users.parquet")
    (tmp_path / "users.txt").write_text("7\n3\n")
    for users in ("users.parquet", "users.txt"):
        some = call_json("score", run, "--users", tmp_path / users, "--out", tmp_path / f"some-{users}")
        (part,) = some["parts"]
        answers = pl.read_parquet(tmp_path / f"some-{users}" / part)
        assert answers["user_id"].unique(maintain_order=True).to_list() == [7, 3]
    refused = call("score", run, "--out", tmp_path / "parts", "--k", "4")
    assert refused.returncode == 2
    assert "another model" in refused.stderr
