"""A batch job by joblib: a task for each file, on two processes of this machine."""

import sys

from joblib import Parallel, delayed
from pyarrow import concat_tables, parquet
from utterances import check, job

import fastgru


def main() -> int:
    folder, model = job()
    scorer = fastgru.Scorer(model, keep="id")
    tables = [parquet.read_table(path) for path in sorted(folder.iterdir())]
    found = concat_tables(Parallel(n_jobs=2)(delayed(scorer)(table) for table in tables))
    gains = dict(zip(found["id"].to_pylist(), found["output"].to_pylist(), strict=True))
    return check("joblib", folder, model, gains)


if __name__ == "__main__":
    sys.exit(main())
