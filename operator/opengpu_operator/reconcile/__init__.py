"""Reconciling: what is, what should be, and the writes between them."""
