"""HTTP on port 8000: /generate, the probes, the metrics, and the videos of the local store (PROTOCOL §4)."""
