"""Install the top-level folders kernels/, datasets/ and benchmarks/ as modules of recsys.

Everything else about the package is in pyproject.toml. The relative links inside recsys/ give editable
installs, type checkers and tests the same tree; none of the folders has an ``__init__.py`` directly inside,
so that other packages named ``kernels``, ``datasets`` or ``benchmarks`` keep their import names.
"""

from setuptools import find_packages, setup

FOLDERS = ("kernels", "datasets", "benchmarks")

packages = find_packages(include=["recsys", "recsys.*"])
package_dir = {"recsys": "recsys"}
for folder in FOLDERS:
    package_dir[f"recsys.{folder}"] = folder
    packages += [f"recsys.{folder}", *(f"recsys.{folder}.{name}" for name in find_packages(folder))]

setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "recsys": ["py.typed"],
        "recsys.serving": [
            "http/assets/*",
            "page/templates/*.html",
            "page/templates/parts/*.html",
            "page/static/*",
        ],
        "recsys.kernels": ["*/configs.json"],
        "recsys.benchmarks": [
            "README.md",
            "accuracy/recipes/*/*.toml",
            "accuracy/spaces/*.toml",
            "results/accuracy/*/*.json",
        ],
    },
)
