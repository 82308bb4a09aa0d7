"""A real Kubernetes cluster on one Linux machine, without a container engine.

Every demo and end-to-end test of the project runs on it. The Kubernetes programs are built from source once
and cached; a node is one process in namespaces of its own, so killing that process removes the whole node.
"""
