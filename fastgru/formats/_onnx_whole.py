"""To come."""

from typing import Any


def file_model(*arguments: Any) -> Any:
    raise NotImplementedError


def live_model(*arguments: Any) -> Any:
    raise NotImplementedError
