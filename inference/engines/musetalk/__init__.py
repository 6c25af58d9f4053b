"""MuseTalk, reimplemented around its published weights: from a video or photo of a person and speech, the person saying it.

See docs/musetalk.md. Importing the package loads no libraries; its module `engine` does.
"""
