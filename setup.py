"""Install the top-level folders kernels/ and datasets/ as recsys.kernels and recsys.datasets.

Everything else about the package is in pyproject.toml. The two relative links inside recsys/ give
editable installs, type checkers and tests the same tree; neither folder has an ``__init__.py``
directly inside, so that other packages named ``kernels`` and ``datasets`` keep their import names.
"""

from setuptools import find_packages, setup

packages = find_packages(include=["recsys", "recsys.*"])
package_dir = {"recsys": "recsys"}
for folder in ("kernels", "datasets"):
    package_dir[f"recsys.{folder}"] = folder
    packages += [f"recsys.{folder}", *(f"recsys.{folder}.{name}" for name in find_packages(folder))]

setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "recsys": ["py.typed"],
        "recsys.datasets": ["*.json"],
        "recsys.kernels": ["*/configs.json"],
    },
)
