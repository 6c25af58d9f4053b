"""Does not listen to SIGTERM, and has a child in a session of its own that does not either."""

import signal
import subprocess
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "3600"], start_new_session=True)
while True:
    time.sleep(60)
