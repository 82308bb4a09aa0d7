"""The Kubernetes API as this operator needs it: kinds, errors, requests, what the informers saw, and events."""
