"""A cluster of Dask on this machine, which the tests of a file share that need one; random numbers."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def client():
    """A client of two workers, each with one thread. Left open, its threads would slow down other files."""
    from dask.distributed import Client, LocalCluster

    options = {
        "processes": True,
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": 50,
    }
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as found:
        yield found
