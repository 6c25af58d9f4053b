"""MuseTalk, built anew around its published weights: a person's video or still, and speech, become the person saying it.

See docs/musetalk.md. Importing the package loads no library; its module `engine` does.
"""
