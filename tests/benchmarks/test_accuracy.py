"""Recipes, records and tables on a log of a few users: what is computed, skipped, refused and written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.benchmarks import accuracy
from recsys.benchmarks.accuracy.defaults import defaults_summary, defaults_table
from recsys.benchmarks.accuracy.places import locked
from recsys.benchmarks.accuracy.recipes import find_items, find_log, read_recipes
from recsys.benchmarks.accuracy.records import compare, current, record_path
from recsys.benchmarks.accuracy.running import read_ranks
from recsys.benchmarks.accuracy.summary import bars_table
from recsys.benchmarks.accuracy.tables import dataset_tables, quality_table, replace_section, write_tables
from recsys.errors import ConfigError, DataError, RunError
from recsys.evaluation.bootstrap import paired_difference
from recsys.evaluation.metrics import per_user_metrics
from recsys.files import sha256_of, write_json


def _run(place: Path, *names: str, **options: Any) -> list[dict[str, Any]]:
    arguments = {"data": place, "runs": place / "runs", "results": place / "results", "device": "cpu"}
    return accuracy.run(names, folder=place / "recipes", **{**arguments, **options})


def test_every_recipe_of_the_checkout_can_be_read() -> None:
    recipes = read_recipes()
    assert {recipe.model for recipe in recipes} >= {"sasrec", "bert4rec", "mamba", "item-knn", "ease"}
    for recipe in recipes:
        assert len(recipe.dataset.sha256) == 64
        assert len({recipe.run_name(seed) for seed in recipe.seeds}) == len(recipe.seeds)
        for figure in (*recipe.published, recipe.bar, recipe.aim):
            assert figure is None or 0 < figure.ndcg < figure.hr < 1
        assert all(figure.source and figure.name for figure in recipe.published)
    assert read_recipes(["ml-100k/ease"])[0].id == "ml-100k/ease"


def test_recipes_are_run_once_and_described(place: Path) -> None:
    said: list[str] = []
    records = _run(place, "toy", say=said.append)
    assert [(r["recipe"], r["seed"]) for r in records] == [
        ("toy/knn", 0),
        ("toy/sasrec-small", 0),
        ("toy/sasrec-small", 1),
    ]
    trained = records[1]
    assert trained["configuration"]["encoder"]["d_model"] == 16
    assert trained["configuration"]["training"]["seed"] == 0
    assert trained["dataset"]["events"] == 180
    assert trained["epochs"] == 2
    assert trained["sessions"] == 1
    assert trained["peak_memory_mib"] > 50
    assert trained["result"]["protocol"]["sha256"] == sha256_of(place / "toy.txt")
    low, high = trained["intervals"]["removed"]["ndcg@10"]
    assert low <= trained["result"]["metrics_seen_removed"]["ndcg@10"] <= high
    assert [entry["neighbors"] for entry in records[0]["tried"]] == [1, 5]
    best = max(entry["valid"]["ndcg@10"] for entry in records[0]["tried"])
    assert records[0]["valid"]["ndcg@10"] == best

    recipe = read_recipes(["toy/sasrec-small"], place / "recipes")[0]
    ranks = read_ranks(place / "runs" / "toy" / recipe.run_name(1))
    assert ranks is not None
    assert ranks["user"].tolist() == list(range(30))
    for seen in ("kept", "removed"):
        mean = per_user_metrics(ranks[seen])["ndcg@10"].mean()
        assert mean == pytest.approx(records[2]["result"][f"metrics_seen_{seen}"]["ndcg@10"])

    before = (place / "results/toy/sasrec-small-seed0.json").stat().st_mtime_ns
    again = _run(place, "toy", say=said.append)
    assert [line for line in said if "done before" in line] == [
        f"{r['recipe']}, seed {r['seed']}: done before" for r in records
    ]
    assert (place / "results/toy/sasrec-small-seed0.json").stat().st_mtime_ns == before
    assert [r["utc"] for r in again] == [r["utc"] for r in records]


def test_a_recipe_may_read_columns_of_the_items(place: Path) -> None:
    recipes = place / "recipes/toy"
    text = (recipes / "sasrec-small.toml").read_text()
    text = text.replace("[training]", 'item_parts = "id+features"\n[training]')
    (recipes / "tags.toml").write_text(text + '\n[items]\nitem_tags = "kind"\n')
    with pytest.raises(DataError, match="no items.parquet or items.csv beside it"):
        _run(place, "toy/tags", seeds=[0])
    (place / "items.csv").write_text("item_id,kind\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(1, 21)))
    first, plain = (_run(place, f"toy/{name}", seeds=[0])[0] for name in ("tags", "sasrec-small"))
    assert first["configuration"]["items"] == {"item_tags": "kind"}
    assert first["parameters"] == plain["parameters"] + 2 * 16  # a row for "a", one for "b"
    found = json.loads((place / "results/toy/comparisons.json").read_text())
    assert {(pair["a"], pair["b"]) for pair in found["pairs"]} == {("sasrec-small", "tags")}
    # What is prepared is taken as it is, without the log and its items.
    (place / "items.csv").unlink()
    (place / "results/toy/tags-seed0.json").unlink()
    again = _run(place, "toy/tags", seeds=[0], data=None)[0]
    assert again["result"]["metrics_seen_kept"] == first["result"]["metrics_seen_kept"]
    (recipes / "tags.toml").write_text(text + '\n[items]\nitem_tag = "kind"\n')
    with pytest.raises(ConfigError, match="item_tag; did you mean 'item_tags'"):
        _run(place, "toy/tags")


def test_the_items_may_stand_in_the_file_of_another_log(place: Path) -> None:
    recipes = place / "recipes/toy"
    text = (recipes / "sasrec-small.toml").read_text()
    text = text.replace("[training]", 'item_parts = "id+features"\n[training]')
    (recipes / "tags.toml").write_text(text + '\n[items]\nitem_tags = "kind"\n')
    dataset = (recipes / "dataset.toml").read_text()
    (recipes / "dataset.toml").write_text(dataset + '[items_file]\nfile = "other/items.csv"\n')
    with pytest.raises(ConfigError, match="dataset.toml: items_file"):
        read_recipes(["toy/tags"], place / "recipes")
    (recipes / "dataset.toml").write_text(
        dataset + '[items_file]\nfile = "other/items.csv"\nitem_column = "ours"\n'
    )
    (recipe,) = read_recipes(["toy/tags"], place / "recipes")
    # Both have a column item_id: theirs, which is not ours.
    other = place / "other/items.csv"
    other.parent.mkdir()
    rows = (f"{i},{21 - i},{'ab'[i % 2]}\n" for i in range(1, 21))
    other.write_text("ours,item_id,kind\n" + "".join(rows))
    for data in (place, place / "other"):  # the folder of logs, or of something else: beside the log's folder
        found = find_items(recipe.dataset, place / "toy/log.csv", data if data == place else None)
        assert isinstance(found, pl.DataFrame)
        assert found.columns == ["item_id", "kind"]
        assert dict(found.select("item_id", "kind").iter_rows()) == {
            str(i): "ab"[i % 2] for i in range(1, 21)
        }
    other.unlink()
    with pytest.raises(DataError, match="other/items.csv"):
        find_items(recipe.dataset, place / "toy/log.csv", place)


def test_an_edited_recipe_is_run_anew_and_more_epochs_go_on(place: Path) -> None:
    first = _run(place, "toy/sasrec-small", seeds=[0])[0]
    path = place / "recipes/toy/sasrec-small.toml"
    recipe_text = path.read_text()
    path.write_text(recipe_text.replace("epochs = 2", "epochs = 3"))
    longer = _run(place, "toy/sasrec-small", seeds=[0])[0]
    assert (first["epochs"], longer["epochs"], longer["sessions"]) == (2, 3, 2)
    path.write_text(recipe_text.replace("n_layers = 1", "n_layers = 2"))
    recipe = read_recipes(["toy/sasrec-small"], place / "recipes")[0]
    assert current(place / "results", recipe, 0) is None
    wider = _run(place, "toy/sasrec-small", seeds=[0])[0]
    assert (wider["epochs"], wider["sessions"]) == (2, 1)
    assert wider["parameters"] > first["parameters"]


def test_a_setting_that_came_later_leaves_old_records_valid(place: Path) -> None:
    _run(place, "toy/sasrec-small", seeds=[0])
    recipe = read_recipes(["toy/sasrec-small"], place / "recipes")[0]
    path = place / "results/toy/sasrec-small-seed0.json"
    record = json.loads(path.read_text())
    del record["configuration"]["encoder"]["time_bias"]  # at its default
    path.write_text(json.dumps(record))
    assert current(place / "results", recipe, 0) is not None
    del record["configuration"]["encoder"]["n_layers"]  # not at its default
    path.write_text(json.dumps(record))
    assert current(place / "results", recipe, 0) is None


def test_an_interrupted_run_goes_on_to_the_same_figures(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.training.trainer import Trainer

    whole = _run(place, "toy/sasrec-small", seeds=[0])[0]
    finish = Trainer._finish_epoch

    def stop_after_one(self: Trainer, *arguments: Any) -> None:
        finish(self, *arguments)
        if self.progress.epoch == 1:
            raise KeyboardInterrupt

    other = {"runs": place / "others", "results": place / "other-results"}
    monkeypatch.setattr(Trainer, "_finish_epoch", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        _run(place, "toy/sasrec-small", seeds=[0], **other)
    assert not (place / "other-results").exists()
    monkeypatch.setattr(Trainer, "_finish_epoch", finish)
    resumed = _run(place, "toy/sasrec-small", seeds=[0], **other)[0]
    assert resumed["sessions"] == 2
    assert resumed["result"]["metrics"] == whole["result"]["metrics"]


def test_figures_are_averaged_over_tie_orders_where_the_dataset_says_so(place: Path) -> None:
    from recsys import Recommender

    rng = np.random.default_rng(4)
    events = [
        (user, item, int(t // 4)) for user in range(30) for t, item in enumerate(rng.permutation(20)[:7])
    ]
    (place / "toy.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in events)
    )
    (place / "toy.txt").unlink()
    sha = sha256_of(place / "toy.csv")
    dataset = place / "recipes/toy/dataset.toml"
    dataset.write_text(f'name = "toy"\nabout = "made"\nsha256 = "{sha}"\ntie_orders = 3\n')
    records = _run(place, "toy", seeds=[0])
    for record in records:
        found = record["tie_orders"]
        assert found["orders"] == 3
        assert found["metrics_seen_removed"]["ndcg@10"] != record["result"]["metrics_seen_removed"]["ndcg@10"]
    recipe = read_recipes(["toy/sasrec-small"], place / "recipes")[0]
    model = Recommender.load(place / "runs/toy" / recipe.run_name(0), device="cpu")
    again = model.evaluate(tie_orders=3)
    mean = records[1]["tie_orders"]["metrics_seen_kept"]
    assert again.metrics_seen_kept["ndcg@10"] == mean["ndcg@10"]
    text = dataset_tables([recipe], place / "results")
    assert f"| {mean['hr@10']:.4f} / {mean['ndcg@10']:.4f} |" in text
    dataset.write_text(dataset.read_text().replace("3", "-3"))
    with pytest.raises(ConfigError, match="tie_orders"):
        read_recipes(["toy"], place / "recipes")


def test_two_processes_do_not_share_a_run(place: Path) -> None:
    recipe = read_recipes(["toy/knn"], place / "recipes")[0]
    with (
        locked(place / "runs" / "toy" / recipe.run_name(0)),
        pytest.raises(RunError, match="another process"),
    ):
        _run(place, "toy/knn")


def test_a_prepared_log_needs_its_file_no_more_but_other_options_do(place: Path) -> None:
    _run(place, "toy/knn")
    (place / "toy.txt").rename(place / "moved.txt")
    assert _run(place, "toy/sasrec-small", seeds=[0], data=None)[0]["epochs"] == 2
    dataset = place / "recipes/toy/dataset.toml"
    dataset.write_text(dataset.read_text() + "[prepare]\nmin_events = 2\n")
    with pytest.raises(DataError, match="pass --data"):
        _run(place, "toy/sasrec-small", seeds=[1], data=None)
    with pytest.raises(DataError, match="made from another log or with other options"):
        _run(place, "toy/sasrec-small", seeds=[1], data=place / "moved.txt")


def test_another_file_than_the_recipes_is_refused(place: Path) -> None:
    (place / "toy.txt").write_text("1 1\n1 2\n1 3\n")
    with pytest.raises(DataError, match="not the file that the recipes of toy are for"):
        _run(place, "toy/knn")
    dataset = read_recipes(["toy/knn"], place / "recipes")[0].dataset
    with pytest.raises(DataError, match="pass --data"):
        find_log(dataset, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("d_model", "d_modle"), "did you mean 'd_model'"),
        (('"sasrec"', '"sasrek"'), "did you mean 'sasrec'"),
        (("seeds = [0, 1]", "seeds = []"), "seeds"),
        (("note", "notes"), "did you mean 'note'"),
        (("ndcg = 0.9", "ndgc = 0.9"), "did you mean 'ndcg'"),
        (("epochs = 2", "epochs = 0"), "training.epochs"),
    ],
)
def test_a_wrong_recipe_is_one_line(place: Path, change: tuple[str, str], message: str) -> None:
    path = place / "recipes/toy/sasrec-small.toml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ConfigError, match=message):
        read_recipes(["toy"], place / "recipes")


def test_tables_say_what_was_reached_and_what_differs(place: Path) -> None:
    records = _run(place, "toy")
    recipes = read_recipes(folder=place / "recipes")
    page = place / "page.md"
    page.write_text("before\n<!-- table:accuracy -->\nold\n<!-- /table:accuracy -->\nafter\n")
    write_tables(page, recipes, place / "results")
    text = page.read_text()
    assert text.startswith("before\n<!-- table:accuracy -->\n### toy\n\nmade\n")
    assert text.endswith("<!-- /table:accuracy -->\nafter\n")
    assert "old" not in text
    rows = {tuple(c.strip() for c in line.split("|")[1:4]): line for line in text.splitlines() if "|" in line}
    removed, kept = rows["sasrec-small", "0, 1", "removed"], rows["sasrec-small", "0, 1", "kept"]
    means = [
        np.mean([r["result"]["metrics_seen_removed"][m] for r in records[1:]]) for m in ("hr@10", "ndcg@10")
    ]
    assert f"| {means[0]:.4f} (" in removed
    assert f"| {means[1]:.4f} (" in removed
    assert "0.5000 / 0.2500 somebody" in removed
    assert "| 0.0000 / 0.9000 | HR@10 alone |" in removed
    assert "| 0.0000 / 0.0000: yes |" in kept
    assert "somebody" not in kept
    assert ("popularity", "", "kept") in rows
    assert "- sasrec-small: small" in text
    assert "a paper" in text
    assert "| knn - sasrec-small | removed |" in text
    told = f"| toy | sasrec-small | ids | 2 | {means[0]:.4f} / {means[1]:.4f} "
    told += "| 0.5000 / 0.2500 (somebody) | 0.0000 / 0.9000 | HR@10 alone |"
    assert bars_table(recipes, place / "results").splitlines()[2:] == [told]
    assert "| sasrec | " in quality_table(recipes, place / "results")
    assert "| knn" not in quality_table(recipes, place / "results")
    assert dataset_tables(recipes, place / "nothing") == ""
    with pytest.raises(DataError, match="lacks the marks"):
        replace_section(page, "other", "")


def test_tests_between_recipes_average_the_seeds_of_each_user(place: Path) -> None:
    _run(place, "toy")
    recipes = read_recipes(folder=place / "recipes")
    found = compare(recipes, place / "results", place / "runs", resamples=50)
    assert found is not None
    assert [(pair["a"], pair["b"], pair["seen"]) for pair in found["pairs"]] == [
        ("knn", "sasrec-small", "kept"),
        ("knn", "sasrec-small", "removed"),
    ]
    knn, sasrec = recipes
    gains = []
    for recipe in (knn, sasrec):
        tables = [read_ranks(place / "runs/toy" / recipe.run_name(seed)) for seed in recipe.seeds]
        gains.append(np.mean([per_user_metrics(t["kept"])["ndcg@10"] for t in tables if t], axis=0))
    expected = paired_difference(gains[0], gains[1], np.random.default_rng(0), resamples=50)
    assert found["pairs"][0]["difference"] == pytest.approx(expected.difference)
    assert found["pairs"][0]["p_value"] == expected.p_value
    assert found["pairs"][0]["seeds"] == {"knn": [0], "sasrec-small": [0, 1]}
    # Where the runs are not, what is known stays.
    assert compare(recipes, place / "results", place / "elsewhere") is None
    assert json.loads((place / "results/toy/comparisons.json").read_text())["pairs"] == found["pairs"]


def test_the_command_lists_runs_and_writes(place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.commands import app as cli

    def call(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["recsys", "bench", "accuracy", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        return str(capsys.readouterr().out)

    assert "amazon-beauty-5core/mamba-tuned, seed 0: " in call()
    recipe = str(place / "recipes/toy/knn.toml")
    folders = ["--runs", str(place / "runs"), "--results", str(place / "results"), "--data", str(place)]
    printed = call(recipe, *folders)
    assert printed.startswith("toy/knn, seed 0: seen kept HR@10 ")
    assert json.loads(call(recipe, *folders, "--json"))["records"][0]["model"] == "item-knn"
    monkeypatch.setattr("sys.argv", ["recsys", "bench", "accuracy", recipe])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "--runs FOLDER is needed" in capsys.readouterr().err


def test_defaults_are_counted_against_the_best_recipe_of_any_encoder(tmp_path: Path) -> None:
    folder, results = tmp_path / "recipes", tmp_path / "results"
    statistics = "[statistics]\nusers = 9\nitems = 9\nevents = 99\nrepeats = 0.0\n"
    # Against .1: .098 is within 3%, .0969 is not; one log lacks the default, one the other.
    reached = {"near": 0.098, "far": 0.0969, "none": None, "alone": 0.05}
    for name in reached:
        (folder / name).mkdir(parents=True)
        (folder / name / "dataset.toml").write_text(f'sha256 = "{name}"\n{statistics}')
        (folder / name / "default.toml").write_text('model = "sasrec"\nsuited = true\n')
        if name != "alone":
            (folder / name / "other.toml").write_text('model = "mamba"\npreset = "tuned"\n')
    recipes = read_recipes(folder=folder)
    for recipe in recipes:
        score = 0.1 if recipe.name == "other" else reached[recipe.dataset.name]
        if score is not None:
            record = {
                "dataset": {"sha256": recipe.dataset.name},
                "configuration": recipe.configuration(0),
                "result": {"metrics_seen_removed": {"ndcg@10": score}},
            }
            write_json(record_path(results, recipe, 0), record)
    assert defaults_summary(recipes, results) == (
        "Within 3% of the best recipe, or above it, on 1 of the 2 logs with both records; "
        "not on far (0.9690). Without one of the two: alone, none."
    )
    lines = defaults_table(recipes, results).splitlines()
    assert [line.rsplit("|", 2)[1].strip() for line in lines[2:6]] == ["", "0.969", "0.980", ""]
