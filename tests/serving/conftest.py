"""Fixtures of the tests of the page: a server, and requests to it."""

import pytest
from command_line import StubFiller
from page_client import Client, running

from inpaint_ops.serving import Method


@pytest.fixture
def filler():
    return StubFiller()


@pytest.fixture
def methods(filler):
    return [
        Method("exemplar", "Copies.", lambda: filler),
        Method("painter", "Paints.", None),
    ]


@pytest.fixture
def server(methods):
    with running(methods) as one:
        yield one


@pytest.fixture
def client(server):
    return Client(server.port)
