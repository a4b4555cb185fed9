"""The server that a test talks to."""

from collections.abc import Iterator

import pytest

from tests.kubernetes.apiserver import ApiServer


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server
