"""Print the oldest version that each dependency may have, as constraints for pip."""

import re
import tomllib
from pathlib import Path


def main() -> None:
    """One line a dependency with a lower bound."""
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    for dependency in tomllib.loads(path.read_text())["project"]["dependencies"]:
        name, bound = re.match(r"([A-Za-z0-9_-]+)>=([0-9.]+)", dependency).groups()  # type: ignore[union-attr]
        print(f"{name}=={bound}" if bound.count(".") > 1 else f"{name}=={bound}.*")


if __name__ == "__main__":
    main()
