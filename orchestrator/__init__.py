"""The reference orchestrator: PROTOCOL.md from the other side, for the demo, the tests and a small fleet.

It owns jobs, hands them to workers, takes them back from workers that fall silent, and keeps every terminal report.
Started with `python -m orchestrator`; docs/orchestrator.md says how, and what its rules are.
"""
