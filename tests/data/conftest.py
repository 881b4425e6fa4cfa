"""Fixtures of the tests of CSV files."""

import functools

import pytest

from tests.support import tables


@pytest.fixture
def table(tmp_path):
    """Returns what opens a table of a content."""
    return functools.partial(tables.opened, tmp_path)


@pytest.fixture
def refusal(tmp_path):
    """Returns what returns the sentence with which a content is refused."""
    return functools.partial(tables.refusal, tmp_path)
