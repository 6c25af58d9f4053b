"""Where the processes meet: the queue, its state machine, its events and the wake-ups beside it.

This package is the only one of the worker that writes SQL, and `database.py` the only module that opens the file.
"""
