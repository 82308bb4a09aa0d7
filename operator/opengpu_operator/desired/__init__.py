"""What a job should look like in Kubernetes: pure functions from a translation to objects as plain dicts.

Nothing here reads a clock, a file or the cluster, so the same input gives the same bytes, in every process
and after every crash. Start reading at :mod:`~opengpu_operator.desired.job`.
"""
