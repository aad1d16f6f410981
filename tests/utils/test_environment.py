"""How to get what is missing: names that an index has, for this installation."""

from importlib import metadata

import pytest

from lvt_ff.utils import environment
from lvt_ff.utils.environment import install_hint

LINES = ["torch>=2", 'one>=6; extra == "both"', 'two; extra == "both"', 'six; extra == "other"']


@pytest.mark.parametrize(
    "installed, expected",
    [
        ({}, 'pip install "one>=6" two'),
        ({"one": "6.1"}, "pip install two"),
        ({"one": "5.0", "two": "1.0"}, 'pip install "one>=6"'),
        ({"one": "6.0", "two": "1.0"}, 'pip install "one>=6" two'),  # there, and broken
    ],
)
def test_the_missing_packages_of_an_extra_are_named(installed, expected, monkeypatch):
    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(environment, "requires", lambda name: LINES)
    monkeypatch.setattr(environment, "version", version)
    assert install_hint("both") == expected


def test_without_an_installation_the_source_folder_is_meant(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment, "requires", requires)
    assert install_hint("app") == 'pip install ".[app]"'


@pytest.mark.parametrize("extra", ["app", "export", "track"])
def test_every_extra_that_is_hinted_at_is_there(extra):
    assert len(install_hint(extra).split()) > 2 and "lvt" not in install_hint(extra)
