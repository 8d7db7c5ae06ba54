"""A cluster of Dask on this machine, which the tests of a file share that need one."""

import pytest


@pytest.fixture(scope="module")
def client():
    """A client of two worker processes, each with one thread. Its own threads would slow down further files."""
    from dask.distributed import Client, LocalCluster

    options = {
        "processes": True,
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": 50,
    }
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as found:
        yield found
