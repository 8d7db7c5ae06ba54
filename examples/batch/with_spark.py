"""A batch job by Spark: Arrow batches of utterances, and a UDF over windows of the same length."""

import sys

import numpy as np
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession, functions
from pyspark.sql.types import ArrayType, FloatType
from utterances import check, job

import fastgru

WINDOW = 50  # frames


def main() -> int:
    folder, model = job()
    scorer = fastgru.Scorer(model, keep="id")
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    table = spark.read.parquet(str(folder))

    # Arrow: a RecordBatch is scored as a table, and each utterance may have any number of frames
    found = table.mapInArrow(lambda batches: map(scorer, batches), "output array<array<float>>, id bigint")
    gains = {row["id"]: row["output"] for row in found.collect()}
    wrong = check("Spark, mapInArrow", folder, model, gains)

    # predict_batch_udf: arrays of one shape, which Spark flattens
    first = fastgru.Scorer(model)
    gain = predict_batch_udf(
        lambda: lambda windows: first(windows).reshape(len(windows), -1),
        return_type=ArrayType(FloatType()),
        batch_size=64,
        input_tensor_shapes=[[WINDOW, 161]],
    )
    long = table.where(functions.size("input") >= WINDOW)
    cut = functions.flatten(functions.slice("input", 1, WINDOW))
    windows = long.select("id", cut.alias("window"))
    rows = windows.select("id", gain("window").alias("gains")).collect()
    begins = {row["id"]: np.array(row["gains"], np.float32).reshape(WINDOW, -1) for row in rows}
    same = all(np.array_equal(found, np.array(gains[i][:WINDOW], np.float32)) for i, found in begins.items())
    print(f"Spark, predict_batch_udf: {len(begins)} windows of {WINDOW} frames, the same bits: {same}")
    spark.stop()
    return wrong or int(not same)


if __name__ == "__main__":
    sys.exit(main())
