"""Imports point one way: the rooms of docs/architecture.md, held by reading every import statement."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module may import modules of its own room and of the rooms listed for it, and nothing else of ours.
ENGINE = ["encoders", "objectives", "jagged", "config", "errors", "kernels", "datasets", "files"]
ALLOWED = {
    "errors": [],
    "config": ["errors"],
    "files": ["errors"],
    "kernels": ["errors"],
    "datasets": ["errors"],
    "jagged": ["errors", "kernels"],
    "encoders": ["jagged", "config", "errors", "kernels"],
    "objectives": ["encoders", "jagged", "kernels"],
    "training": ENGINE,
    "evaluation": ["errors", "files", "jagged", "kernels", "datasets"],
    "retrieval": ["errors", "config", "files", "kernels"],
    "opening": ["errors", "datasets"],
    "latent_memory": ["jagged", "datasets", "encoders", "log_states", "retrieval"],
    "validation": ["datasets", "encoders", "evaluation", "log_states", "retrieval"],
    "local_evaluation": ["errors", "datasets", "evaluation", "kernels", "retrieval", "validation"],
    "decoding": ["errors", "retrieval"],
    "decoder_building": [
        "datasets",
        "decoding",
        "encoders",
        "latent_memory",
        "local_evaluation",
        "log_states",
        "retrieval",
        "validation",
    ],
    "decoder_evaluation": [
        "errors",
        "datasets",
        "decoding",
        "encoders",
        "evaluation",
        "local_evaluation",
        "log_states",
        "retrieval",
    ],
    "states": ["errors", "encoders", "datasets"],
    "floors": ["config", "errors", "datasets", "evaluation"],
    "fresh_items": ["errors", "datasets", "retrieval"],
    "interests": ["errors", "jagged", "encoders"],
    "offline_scoring": [
        "answers",
        "datasets",
        "decoding",
        "encoders",
        "errors",
        "evaluation",
        "files",
        "interests",
        "queries",
        "retrieval",
    ],
    "indexing": [
        "answers",
        "datasets",
        "decoder_building",
        "decoding",
        "encoders",
        "errors",
        "fresh_items",
        "kernels",
        "offline_scoring",
        "retrieval",
        "run_folder",
        "training",
    ],
    "request_times": ["datasets", "errors"],
    "log_states": ["datasets", "encoders"],
    "queries": ["errors", "jagged", "datasets", "request_times"],
    "answers": [
        "config",
        "errors",
        "jagged",
        "datasets",
        "decoding",
        "encoders",
        "fresh_items",
        "interests",
        "queries",
        "retrieval",
        "window_answers",
    ],
    "window_answers": ["decoding", "encoders", "evaluation", "queries", "retrieval"],
    "run_folder": ["config", "encoders", "errors", "files", "training"],
    "recommender": [
        *ENGINE,
        "training",
        "evaluation",
        "retrieval",
        "queries",
        "answers",
        "run_folder",
        "decoding",
        "decoder_evaluation",
        "indexing",
        "opening",
    ],
    "command_output": ["errors", "files"],
    "bench_commands": ["command_output", "datasets", "errors", "files", "kernels"],
    "retrieval_commands": ["command_output", "decoding", "errors", "recommender", "run_folder"],
    "user_clock": ["answers", "datasets", "encoders", "errors", "kernels", "queries"],
    "user_clock_plot": ["errors", "files", "user_clock"],
    "clock_commands": [
        "command_output",
        "datasets",
        "errors",
        "evaluation",
        "recommender",
        "run_folder",
        "user_clock",
        "user_clock_plot",
    ],
    "__main__": ["cli"],
    "cli": [
        *ENGINE,
        "evaluation",
        "floors",
        "recommender",
        "run_folder",
        "bench_commands",
        "clock_commands",
        "command_output",
        "retrieval_commands",
    ],
}
THIRD_PARTY = {
    "kernels": {"torch", "triton", "numba", "numpy", "llvmlite", "mamba_ssm"},
    "datasets": {"polars", "numpy", "pyarrow", "platformdirs", "rich"},
}


def _modules() -> list[tuple[str, Path]]:
    found = []
    for folder in ("kernels", "datasets"):
        found += [(folder, path) for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in sorted((ROOT / "recsys").glob("*.py")):
        found.append((path.stem, path))
    for path in sorted((ROOT / "recsys").glob("*/*.py")):
        if path.parent.name not in ("kernels", "datasets"):
            found.append((path.parent.name, path))
    return [(room, path) for room, path in found if room != "__init__"]


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not used here"
            names.add(node.module or "")
            if node.module == "recsys":
                names |= {f"recsys.{alias.name}" for alias in node.names}
    return names


def test_the_walk_sees_every_room() -> None:
    assert {room for room, _ in _modules()} == set(ALLOWED)


@pytest.mark.parametrize(
    ("room", "path"), _modules(), ids=lambda x: str(x.relative_to(ROOT)) if isinstance(x, Path) else x
)
def test_imports_point_downwards(room: str, path: Path) -> None:
    for name in _imported(path):
        parts = name.split(".")
        if parts[0] == "recsys" and len(parts) > 1:
            target = parts[1]
            assert target in {room, "__version__", *ALLOWED[room]}, f"{path} imports {name}"
        assert parts[0] not in ("kernels", "datasets"), f"{path} imports {name} of someone else"
        # Benchmarks lie in the checkout alone: one module may look for them there.
        assert parts[0] != "benchmarks" or room == "bench_commands", f"{path} imports {name}"


@pytest.mark.parametrize(
    ("room", "path"), _modules(), ids=lambda x: str(x.relative_to(ROOT)) if isinstance(x, Path) else x
)
def test_ground_floor_rooms_use_only_their_libraries(room: str, path: Path) -> None:
    import sys

    if room not in THIRD_PARTY:
        return
    outside = {name.split(".")[0] for name in _imported(path)} - {"recsys"} - set(sys.stdlib_module_names)
    assert outside <= THIRD_PARTY[room], f"{path} imports {outside - THIRD_PARTY[room]}"
