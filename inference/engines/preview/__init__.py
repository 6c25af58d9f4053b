"""The preview engine: moves the mouth of a face with the loudness of the speech. No weights, no GPU.

It shows what a job will be (whose face, which part of the video, how long, how large) on any machine, and lets everything
around an engine be used and tested where no model is.
"""
