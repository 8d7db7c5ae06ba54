"""To come."""

from typing import Any


def hdf5_model(*arguments: Any) -> Any:
    raise NotImplementedError


def archive_model(*arguments: Any) -> Any:
    raise NotImplementedError


def live_model(*arguments: Any) -> Any:
    raise NotImplementedError
