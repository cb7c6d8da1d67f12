"""Processes that are started for a run, and are all gone after it; and ports that nobody has taken.

Each is started in a session of its own and ended by its number, with all that it has started.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType

from ..errors import require

HOST = "127.0.0.1"
MARK = "FEDECOUPLE_FLOWER"  # in the environment of every process of a run, also of those that Flower and Ray start
GRACE = 6.0  # seconds between asking a process to end and ending it
PAUSE = 0.05
IN_USE = "address already in use"  # in the log of a server that cannot have its port
LAST_LINES = 12  # of a log, in the message about a process that has ended


class Failed(RuntimeError):
    """A process has ended that should not have, or does not do what it was started for."""


def free_ports(wanted: Sequence[int], host: str = HOST) -> list[int]:
    """For each port wanted that port, or the next one above it that is free; no two are the same. ValueError for a
    number that is no port; OSError where none is free."""
    found: list[int] = []
    for port in wanted:
        require(isinstance(port, int) and 1 <= port <= 65535, "port", port, "a whole number from 1 to 65535")
        while port in found or not is_free(port, host):
            port += 1
            if port > 65535:
                raise OSError(f"no port is free from {wanted[len(found)]} on")
        found.append(port)
    return found


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen there now."""
    with closing(socket.socket(socket.AF_INET)) as trying:
        # As servers do: a port whose last connection is hardly closed is free.
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind((host, port))
            trying.listen(1)
        except OSError:
            return False
    return True


def environment(home: Path, mark: str, first_in_path: Sequence[Path] = ()) -> dict[str, str]:
    """The environment of Flower's processes: this one's, and what Flower needs in order to do no more than asked.

    home: the folder of Flower's own files. mark: what this run's processes are known by. first_in_path: folders of
    commands to be found before Flower's own.
    """
    folders = [*(str(folder) for folder in first_in_path), sysconfig.get_path("scripts"), os.environ.get("PATH", "")]
    not_by_proxy = f"{HOST},localhost"
    return {
        **os.environ,
        "PATH": os.pathsep.join(folders),  # Flower finds its own programs there, and nowhere else
        "FLWR_HOME": str(home),  # else ~/.flwr, which all runs of a user share
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # else every run installs PyTorch anew
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",  # seconds; else one. Shorter, asking itself keeps a core busy.
        "OMP_NUM_THREADS": "1",  # the nodes share the machine's cores
        "NO_PROXY": not_by_proxy,
        "no_proxy": not_by_proxy,
        MARK: mark,
    }


class Processes:
    """The processes of a run. As a context manager: however it is left, none of them is there afterwards.

    mark: what they are known by (`environment`). folder: where their logs go, NAME.log.
    """

    def __init__(self, mark: str, folder: Path):
        self.mark = mark
        self.folder = folder
        self.started: dict[str, subprocess.Popen] = {}
        self.logs = ExitStack()

    def __enter__(self) -> Processes:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_all()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """Start a process in a session of its own; a second one of a name begins the log anew."""
        path = self.log_of(name)
        path.unlink(missing_ok=True)
        log = self.logs.enter_context(path.open("wb"))
        self.started[name] = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def log_of(self, name: str) -> Path:
        """The log of a process."""
        return self.folder / f"{name}.log"

    def text_of(self, name: str) -> str:
        """What a process has printed so far."""
        path = self.log_of(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_until(self, what: str, is_so: Callable[[], object], seconds: float, names: Collection[str] = ()) -> None:
        """Return once `is_so()`. Failed where it takes longer than so many seconds, or one of the processes `names`
        ends before. what: for the message, "the SuperLink answers"."""
        end = time.monotonic() + seconds
        while not is_so():
            for name in names:
                self.check_runs(name)
            if time.monotonic() > end:
                logs = "".join(f"\n{self.last_lines(name)}" for name in names)
                raise Failed(f"after {seconds:g} seconds it is not so that {what}{logs}")
            time.sleep(PAUSE)

    def check_runs(self, name: str) -> None:
        """Raise Failed, with its last words, where this process has ended."""
        code = self.started[name].poll()
        if code is not None:
            raise Failed(f"{name} has ended with code {code}:\n{self.last_lines(name)}")

    def has_lost_its_port(self, name: str) -> bool:
        """Whether a process has ended, or is about to, because another one was quicker to take its port."""
        return IN_USE in self.text_of(name)

    def last_lines(self, name: str) -> str:
        """The end of a process's log."""
        return "\n".join(self.text_of(name).splitlines()[-LAST_LINES:])

    def kill(self, name: str) -> None:
        """End a process and all of its session at once, as a power cut would."""
        process = self.started.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end_all(self) -> None:
        """Ask all to end, and end those that have not after GRACE seconds; Ctrl-C meanwhile only makes it quicker."""
        was_interrupted = False
        end = time.monotonic() + GRACE
        for process in self.started.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < end and self.running():
            try:
                time.sleep(PAUSE)
            except KeyboardInterrupt:
                was_interrupted = True
                break
        for process in self.started.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for number in marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for process in self.started.values():
            process.wait()
        last_call = time.monotonic() + GRACE
        while self.running() and time.monotonic() < last_call:
            time.sleep(PAUSE)  # the system needs a moment to take away what was ended
        self.started.clear()
        self.logs.close()
        if was_interrupted:
            raise KeyboardInterrupt

    def running(self) -> list[int]:
        """The numbers of this run's processes that are there: those started, and what they have started."""
        of_ours = [process.pid for process in self.started.values() if process.poll() is None]
        return sorted({*of_ours, *marked(self.mark)})


def marked(mark: str) -> list[int]:
    """The numbers of the processes whose environment bears this mark, but for this one: also of those whose parents
    have ended. Linux says so in /proc; elsewhere there is no telling, and the list is empty."""
    wanted = f"{MARK}={mark}".encode()
    numbers = []
    folder = Path("/proc")
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            if wanted in (entry / "environ").read_bytes().split(b"\0"):  # a zombie's is empty
                numbers.append(int(entry.name))
    return numbers
