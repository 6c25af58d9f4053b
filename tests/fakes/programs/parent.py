"""Has a child that nobody told to die with its parent."""

import subprocess
import time

subprocess.Popen(["sleep", "3600"])
while True:
    time.sleep(60)
