"""What runs on the executors: the sentinel, the agent and the TensorFlow process of a member.

Importing this package loads nothing else: the sentinel starts in milliseconds and must not
depend on grpc, tensorflow or pyspark being importable.
"""
