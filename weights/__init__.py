"""The published weights: which files each engine needs, downloading them from their hubs, verifying them. No torch."""
