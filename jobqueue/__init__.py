"""What the processes share: the queue, its state machine, its events and the wake-ups.

Only this package of the worker contains SQL, and only `database.py` opens the file.
"""
