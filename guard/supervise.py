"""supervisord in this process, with four additions.

A child's death wakes it (on its own it checks once a second); the rest of a dead program's process group is killed; a program
that cannot be kept running ends everything, with a verdict; each of these events is one log line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from supervisor import events
from supervisor.medusa import asyncore_25
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

from guard.output import Output
from guard.verdict import EXIT_FATAL, Verdict, leave
from supervision import stopping_file

log = logging.getLogger(__name__)

#: Iterations of supervisord's loop after a wake-up: a death is reaped at the end of one, the program is started in the next,
#: and the listener hears of it in the one after.
TURNS_AFTER_WAKE_UP = 4


def supervise(configuration: Path, run_dir: Path, output: Output) -> None:
    """Run the programs of a supervisord configuration until SIGTERM, SIGINT or a verdict; returns when all have exited."""
    options = _Options()
    options.realize(["-c", str(configuration), "--nodaemon", "--silent"])
    options.first, options.test = True, False
    with contextlib.suppress(asyncore_25.ExitNow):
        _Supervisor(options, run_dir, output).main()
    options.close_httpservers()


_ENDS = (events.ProcessStateExitedEvent, events.ProcessStateBackoffEvent, events.ProcessStateStoppedEvent)


class _Options(ServerOptions):  # type: ignore[misc]
    """Remembers how each process ended; supervisord keeps the code but not the signal."""

    def __init__(self) -> None:
        super().__init__()
        self.wait_status: dict[int, int] = {}

    def waitpid(self) -> tuple[int | None, int | None]:
        pid, status = super().waitpid()
        if pid in self.pidhistory:
            self.wait_status[pid] = status
        return pid, status


class _Supervisor(Supervisor):  # type: ignore[misc]
    def __init__(self, options: _Options, run_dir: Path, output: Output) -> None:
        super().__init__(options)
        self._run_dir, self._output = run_dir, output

    def runforever(self) -> None:
        events.subscribe(events.ProcessLogEvent, self._on_output)
        events.subscribe(events.ProcessStateEvent, self._on_state)
        stopping_file(self._run_dir).unlink(missing_ok=True)
        events.subscribe(events.SupervisorStoppingEvent, self._on_stopping)  # sent before any program is told to stop
        doorbell = _Doorbell()
        self.options.get_socket_map()[doorbell.fd] = doorbell
        doorbell.ring()
        super().runforever()

    def tick(self, now: float | None = None) -> None:
        super().tick(now)
        self._output.settle()  # at the end of each iteration

    def _on_output(self, event: Any) -> None:
        self._output.piece(event.process.config.name, event.channel, event.data)

    def _on_stopping(self, event: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk: then nobody waits for jobs that could finish
            stopping_file(self._run_dir).touch()

    def _on_state(self, event: Any) -> None:
        process, program = event.process, event.process.config.name
        if isinstance(event, _ENDS):
            if process.pid:
                _kill_group(process.pid)
            self._output.ended(program)
        end = self._end(process)
        if isinstance(event, events.ProcessStateStartingEvent):
            log.info("%s starts", program)
        elif isinstance(event, events.ProcessStateExitedEvent):
            log.warning("%s %s; restarting it", program, end)
        elif isinstance(event, events.ProcessStateBackoffEvent) and process.backoff <= process.config.startretries:
            log.warning("%s %s; try %d of %d follows", program, end, process.backoff + 1, process.config.startretries + 1)
        elif isinstance(event, events.ProcessStateFatalEvent) and self.options.mood == SupervisorStates.RUNNING:
            self._give_up(program, process)

    def _end(self, process: Any) -> str:
        """How the process ended, in words."""
        status = self.options.wait_status.pop(process.pid, None)
        if status is None:
            return f"could not be started: {process.spawnerr}"
        lived_s = max(0.0, time.time() - process.laststart)
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return f"exited with code {code} after {lived_s:.1f} s"
        guess = ", possibly out of memory," if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{guess} after {lived_s:.1f} s"

    def _give_up(self, program: str, process: Any) -> None:
        last = self._output.last_line(program) or process.spawnerr
        reason = f"{program} failed to start {process.config.startretries + 1} times; its last line: {last}"
        leave(self._run_dir, Verdict(code=EXIT_FATAL, reason=reason))
        self.options.mood = SupervisorStates.SHUTDOWN


class _Doorbell:
    """A pipe in supervisord's loop that every signal writes to, and that keeps the loop running for a few iterations."""

    def __init__(self) -> None:
        self.fd, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._turns = 0
        signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it rings already
            os.write(self._bell, b"\0")

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        signals = os.read(self.fd, 4096).strip(b"\0")
        self._turns = TURNS_AFTER_WAKE_UP if signals else self._turns - 1
        if self._turns > 0:
            self.ring()

    def handle_error(self) -> None:
        log.error("the wake-up pipe is broken; programs are restarted up to a second late", exc_info=True)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in it
        os.killpg(pid, signal.SIGKILL)
