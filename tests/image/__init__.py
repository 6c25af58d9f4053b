"""Looks at the image from outside, with nothing but docker or podman and the standard library: what `docker/check` runs."""
