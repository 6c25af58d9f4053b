"""The reference orchestrator: the server side of PROTOCOL.md, for the demo, the tests and a small fleet.

It owns jobs, assigns them to workers, requeues jobs of silent workers, and keeps every terminal report.
Start it with `python -m orchestrator`; docs/orchestrator.md has the options and rules.
"""
