"""One layer, several processes: each loads it once."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import fastgru


def main():
    layer = fastgru.GRU(64, reset_after=True)
    layer.build((None, None, 40))
    scorer = fastgru.Scorer(layer)
    batches = np.random.default_rng(0).normal(size=(10, 8, 100, 40)).astype("float32")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as workers:
        theirs = list(workers.map(scorer, batches))
    same = all(np.array_equal(their, layer(x)) for their, x in zip(theirs, batches, strict=True))
    print(f"{len(theirs)} batches, the same bits: {same}")


if __name__ == "__main__":
    main()
