"""Requests that are refused: a status of HTTP and one readable sentence."""

from __future__ import annotations

from http import HTTPStatus


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        status: of the answer.
        text: one sentence, shown to the user.
    """

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
