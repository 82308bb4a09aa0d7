"""What the operator shows of itself: metrics, logs and probes."""
