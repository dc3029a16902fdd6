"""The study's requests asked of runs that `recsys bench accuracy` trained.

    python -m recsys.benchmarks.clock.recipes foursquare-nyc --runs RUNS --out clock-recipes.json

A recipe named ENCODER-last is what ENCODER-clock is compared with; both, with counts near the hour.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys.baselines.near_hour import NearHourConfig
from recsys.benchmarks.accuracy.places import prepared_log
from recsys.benchmarks.accuracy.recipes import Recipe, read_recipes
from recsys.benchmarks.clock.counts import count_ranks
from recsys.benchmarks.clock.requests import Floats, Requests, by_user, draw_requests, gains, rank_requests
from recsys.benchmarks.machine import stamp
from recsys.config import to_dict
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import RunError
from recsys.evaluation.bootstrap import confidence_intervals, paired_difference
from recsys.files import write_json

__all__ = ["recipes_table", "summarize"]

RESAMPLES = 10_000
NEAR_HOUR = "own counts, recent, near the hour"
WITH, WITHOUT = "-clock", "-last"


def ask(recipe: Recipe, seed: int, runs: Path, store: SequenceStore, requests: Requests) -> Floats | None:
    """(R,) gains of one run's answers; None where it has not been trained to its end."""
    import recsys

    folder = runs / recipe.dataset.name / recipe.run_name(seed)
    if not (folder / "ranks.npy").exists():
        return None
    return gains(rank_requests(recsys.load(folder).encoder_, store, requests))


def summarize(found: dict[str, dict[int, Floats]], counted: Floats, requests: Requests) -> dict[str, Any]:
    """Means, intervals and paired tests over users; each recipe's value is the mean over its seeds.

    Args:
        found: by recipe and seed, (R,) gains.
        counted: (R,) gains of counts near the hour.
        requests: R of them.
    """
    users = {name: _users(each, requests) for name, each in found.items()}
    reference = by_user(counted, requests)
    rows = []
    for name, each in found.items():
        gain = np.mean(list(each.values()), axis=0)
        interval = confidence_intervals({"ndcg@10": users[name]}, np.random.default_rng(0))["ndcg@10"]
        row: dict[str, Any] = {
            "recipe": name,
            "seeds": sorted(each),
            "ndcg@10": float(users[name].mean()),
            "interval": list(interval),
            "each_seed": [float(by_user(each[seed], requests).mean()) for seed in sorted(each)],
            **_parts(gain, requests),
            "against_counts": _test(users[name], reference),
        }
        other = name.removesuffix(WITH) + WITHOUT
        if name.endswith(WITH) and other in found:
            shared = sorted(each.keys() & found[other].keys())
            sides = [_users({s: found[side][s] for s in shared}, requests) for side in (name, other)]
            row["against_last"] = {"seeds": shared, **_test(sides[0], sides[1])}
        rows.append(row)
    return {
        "users": len(reference),
        "requests": len(requests.item),
        "new_share": float((~requests.repeated).mean()),
        "counts": {"ndcg@10": float(reference.mean()), **_parts(counted, requests)},
        "rows": rows,
    }


def recipes_table(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = [
        "| recipe | seeds | NDCG@10, 95% (each seed) | repeated places | new places | minus counts | "
        "minus the bias by the last one |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in summary["rows"]:
        low, high = row["interval"]
        each = ", ".join(f"{value:.4f}" for value in row["each_seed"])
        mean = f"{row['ndcg@10']:.4f} ({low:.4f} to {high:.4f}; {each})"
        lines.append(
            f"| {row['recipe']} | {len(row['seeds'])} | {mean} | "
            f"{row['repeated']:.4f} | {row['new']:.4f} | {_shown(row['against_counts'])} | "
            f"{_shown(row.get('against_last'))} |"
        )
    counts = summary["counts"]
    mean, repeated, new = (f"{counts[part]:.4f}" for part in ("ndcg@10", "repeated", "new"))
    lines.append(f"| counts near the hour | | {mean} | {repeated} | {new} | | |")
    return "\n".join(lines) + "\n"


def _users(each: dict[int, Floats], requests: Requests) -> Floats:
    """(U,) mean over seeds of users' means."""
    found: Floats = np.mean([by_user(gain, requests) for gain in each.values()], axis=0)
    return found


def _parts(gain: Floats, requests: Requests) -> dict[str, float]:
    """Means over the requests for places that the user has been to, and for new ones."""
    return {"repeated": float(gain[requests.repeated].mean()), "new": float(gain[~requests.repeated].mean())}


def _test(one: Floats, other: Floats) -> dict[str, float]:
    return paired_difference(one, other, np.random.default_rng(0), resamples=RESAMPLES)._asdict()


def _shown(test: dict[str, Any] | None) -> str:
    if test is None:
        return ""
    return f"{test['difference']:+.4f} ({test['low']:+.4f} to {test['high']:+.4f}), p {test['p_value']:.2g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask every run that is there, print the table, write the record."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.clock.recipes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help="of `recsys bench accuracy`, with local times")
    parser.add_argument("--runs", type=Path, required=True, help="its folder of runs")
    parser.add_argument("--data", type=Path, help="the log, if it is not prepared there")
    parser.add_argument("--recipes", type=Path, help="folder of recipes in place of the checkout's")
    parser.add_argument("--per-user", type=int, default=10, help="most requests (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="record to write")
    options = parser.parse_args(arguments)
    folder = {} if options.recipes is None else {"folder": options.recipes}
    recipes = [recipe for recipe in read_recipes([options.dataset], **folder) if not recipe.is_baseline]
    store = prepared_log(recipes[0], options.data, options.runs, print)
    requests = draw_requests(store, options.per_user)
    found: dict[str, dict[int, Floats]] = {}
    for recipe in recipes:
        for seed in recipe.seeds:
            gain = ask(recipe, seed, options.runs, store, requests)
            if gain is not None:
                found.setdefault(recipe.name, {})[seed] = gain
    if not found:
        raise RunError(f"{options.runs}: holds no finished run of {options.dataset}")
    counted = gains(count_ranks(store, requests)[NEAR_HOUR])
    summary = {
        "benchmark": "clock-recipes",
        "log": store.name,
        **stamp(),
        "near_hour": to_dict(NearHourConfig()),
        **summarize(found, counted, requests),
    }
    print(recipes_table(summary), end="")
    if options.out is not None:
        write_json(options.out, summary)


if __name__ == "__main__":
    main()
