"""The list of packages, which pyproject.toml cannot say: conf/ is installed as unigen.conf."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["unigen*"]), "unigen.conf"],
    package_dir={"unigen.conf": "conf"},
)
