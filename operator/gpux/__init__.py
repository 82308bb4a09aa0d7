"""GPUX for any container platform: content-addressed files, calls of a worker, and the agent beside it.

The package knows nothing of Kubernetes. The store keeps bytes and calls; the agent is what a job sees of it.
"""
