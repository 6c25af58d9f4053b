"""The published weights: which files each engine needs, fetching them from their hubs, checking what is there. No torch."""
