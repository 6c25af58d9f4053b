"""Runs until it is told to end."""

import time

print("2026-01-01T00:00:00Z steady     info  is ready", flush=True)
while True:
    time.sleep(60)
