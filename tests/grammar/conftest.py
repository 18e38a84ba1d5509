"""`pytest tests/grammar --update-golden` rewrites the golden texts."""

import contextlib

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    with contextlib.suppress(ValueError):  # another folder of tests has added it
        parser.addoption("--update-golden", action="store_true", help="rewrite golden texts from what is produced")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden", default=False))
