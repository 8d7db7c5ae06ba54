"""A batch job by Ray Data: a pool of two actors, each with a scorer."""

import sys
import warnings

import ray
from utterances import check, job

import fastgru


def main() -> int:
    folder, model = job()
    warnings.filterwarnings("ignore", module="ray")
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)  # an actor each, and one that reads
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = ray.data.read_parquet(str(folder)).map_batches(
        fastgru.Scorer,
        fn_constructor_args=(model,),
        fn_constructor_kwargs={"keep": "id"},
        batch_format="pyarrow",
        batch_size=16,
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    gains = {row["id"]: row["output"] for row in found.take_all()}
    ray.shutdown()
    return check("Ray Data", folder, model, {i: [list(frame) for frame in y] for i, y in gains.items()})


if __name__ == "__main__":
    sys.exit(main())
