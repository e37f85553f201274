"""Packaging: CMake builds the C++ runtime and its binding; the folder passes/ is installed as lutc.passes."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["lutc", "lutc.*"]),
        *("lutc." + p for p in find_packages(include=["passes", "passes.*"])),
    ],
    package_dir={"lutc": "lutc", "lutc.passes": "passes"},
    package_data={"lutc": ["py.typed"], "lutc.cost": ["defaults/*.json"]},
    cmake_source_dir=".",
)
