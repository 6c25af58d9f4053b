"""FastWan 2.2 TI2V 5B: an image becomes the first frame of a short video that follows a prompt.

See docs/fastwan.md. Importing the package loads no library; its module `engine` does.
"""
