"""The native-Kubernetes OpenGPU provider: Compose files as GPU workloads."""
