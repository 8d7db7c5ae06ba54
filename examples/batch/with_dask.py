"""A batch job by Dask: a task for each partition of a DataFrame, on two worker processes."""

import sys

import dask.dataframe
from dask.distributed import Client, LocalCluster
from utterances import check, job

import fastgru


def main() -> int:
    folder, model = job()
    scorer = fastgru.Scorer(model, keep="id")
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster):  # or Client("tcp://host:8786")
        table = dask.dataframe.read_parquet(folder, dtype_backend="pyarrow")
        found = scorer.map(table).compute()  # or .to_parquet("gains")
    return check("Dask", folder, model, dict(zip(found["id"], found["output"], strict=True)))


if __name__ == "__main__":
    sys.exit(main())
