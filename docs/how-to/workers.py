"""One layer, several processes: each worker gets it once, and from then on only arrays travel."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np

import fastgru


def start(given):
    """A worker begins: the layer, unpickled and packed, is its own from now on."""
    global layer
    layer = given


def run(x):
    return layer(x)


def main():
    ours = fastgru.GRU(64, reset_after=True)
    ours.build((None, None, 40))
    batches = np.random.default_rng(0).normal(size=(10, 8, 100, 40)).astype("float32")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=start, initargs=(ours,)) as workers:
        theirs = list(workers.map(run, batches))
    same = all(np.array_equal(their, ours(x)) for their, x in zip(theirs, batches, strict=True))
    print(f"{len(theirs)} batches, the same bits: {same}")


if __name__ == "__main__":
    main()
