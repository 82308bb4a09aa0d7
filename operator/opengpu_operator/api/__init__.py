"""What the other layers agree on: the kinds, their conditions, reasons, labels and the translation of a file.

Nothing here talks to anything: no kopf, Kubernetes client, HTTP client or file is imported, so every layer
and every test can use these models.
"""
