"""The preview engine: moves a face's mouth with the loudness of the speech. No weights, no GPU.

It previews a job (whose face, which part of the video, how long, how large) on any machine, and lets everything around an
engine be used and tested without a model.
"""
