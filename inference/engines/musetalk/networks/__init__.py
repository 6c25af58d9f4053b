"""Networks of our own that load the published files: names and shapes are theirs, the code is ours."""
