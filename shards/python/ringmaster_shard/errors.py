"""How a request to the API server ends that isn't answered with what was asked for."""

from __future__ import annotations


class Failure(Exception):
    """The API server refused: nothing was written."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        """HTTP status, 400 and above."""
        self.reason = reason
        """As a Status has it: AlreadyExists, Conflict, NotFound, ..."""


class Unreachable(Exception):
    """No answer, or none that can be read. What a write did is unknown."""


class Behind(Exception):
    """The cache lacks a child that is there. Its event is on its way; nothing was written, the object is run again."""
