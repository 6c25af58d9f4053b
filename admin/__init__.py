"""The operator's page: a window on the queue. It holds nothing of its own but log-ins, and nothing waits for it."""
