"""The driver's side on Spark: the only importer of pyspark."""
