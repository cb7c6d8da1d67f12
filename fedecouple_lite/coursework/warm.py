"""Kernels that begin warm: forked from a process that has imported what every submission imports, some seconds each.

That process has read nothing of a submission and nothing of the grader's, so a kernel finds in its memory what it would
have imported itself, and no more. Linux only; elsewhere kernels are started as Jupyter starts them.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import LocalProvisioner
from nbclient import NotebookClient
from traitlets import Dict, Int

# What a kernel and the given cells of the assignments load.
MODULES = (
    "ipykernel.kernelapp",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
    "pandas",
    "fedecouple_lite.course.checks",
    "fedecouple_lite.coursework.answers",
)
LONGEST = 2**20  # bytes of a request
AVAILABLE = sys.platform == "linux" and hasattr(os, "pidfd_open")

Limits = dict[int, int]  # by the number of a resource (see `resource`), for soft and hard limit alike


# --- The grader's side ---


class WarmProvisioner(LocalProvisioner):
    """Starts a Jupyter kernel by asking for a fork. `limits` hold before a line of the submission runs."""

    limits: Dict[int, int] = Dict(key_trait=Int(), value_trait=Int(), help="by the number of a resource")

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        process = ForkedProcess(cmd, str(kwargs.get("cwd") or Path.cwd()), kwargs["env"], self.limits)
        self.process = process  # type: ignore[assignment]  # no Popen, but what is used of one
        self.pid = process.pid
        self.pgid = process.pid
        return self.connection_info


class WarmClient(NotebookClient):
    """Runs a notebook in a kernel that is forked; in one of Jupyter's own where nothing can be forked."""

    limits: Limits | None = None  # none

    def create_kernel_manager(self) -> Any:
        manager = super().create_kernel_manager()
        if AVAILABLE:
            who = {"kernel_id": manager.kernel_id, "kernel_spec": manager.kernel_spec, "parent": manager}
            manager.provisioner = WarmProvisioner(limits=self.limits or {}, **who)
        return manager


class ForkedProcess:
    """A kernel's process, with what Jupyter uses of a `subprocess.Popen`. It is no child of this process."""

    stdin = stdout = stderr = None

    def __init__(self, command: Sequence[str], folder: str, environment: dict[str, str], limits: Limits):
        arguments = list(command[command.index("ipykernel_launcher") + 1 :])
        self.pid = fork(
            {"arguments": arguments, "folder": folder, "environment": environment, "limits": list(limits.items())}
        )
        self.handle = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """None while it runs, then 1: nobody here is told its exit status."""
        ended, _, _ = select.select([self.handle], [], [], 0)
        return 1 if ended else None

    def wait(self, timeout: float | None = None) -> int:
        """1 when it has ended; TimeoutExpired where it has not in so many seconds."""
        ended, _, _ = select.select([self.handle], [], [], timeout)
        if not ended:
            raise subprocess.TimeoutExpired("kernel", timeout or 0.0)
        return 1

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self.handle)


def fork(request: dict[str, Any]) -> int:
    """The process number of a new kernel."""
    line, _ = warm_process()
    line.sendall(json.dumps(request).encode())
    return int(line.recv(64))


@cache
def warm_process() -> tuple[socket.socket, subprocess.Popen]:
    """The process that is forked, one for each grader, and the line to it. It ends when the line is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
    with theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    return ours, process


def pid_of_warm_process() -> int | None:
    """Its number, where there is one."""
    if not warm_process.cache_info().currsize:
        return None
    _, process = warm_process()
    return process.pid


# --- The process that is forked ---


def serve_forks(line: socket.socket) -> None:
    """Fork for every request, until the other side hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the grader, which hangs up
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that kernels that have ended are gone
    for module in MODULES:
        import_module(module)
    while request := line.recv(LONGEST):
        pid = os.fork()
        if pid == 0:
            line.close()
            become_kernel(**json.loads(request))
        line.sendall(str(pid).encode())


def become_kernel(
    arguments: list[str], folder: str, environment: dict[str, str], limits: list[tuple[int, int]]
) -> None:
    """Run a kernel in this process, and end with it."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[0] = ""  # as for a program that is started in that folder
        ends_with = f"--IPKernelApp.parent_handle={os.getppid()}"  # the process that is forked
        sys.argv = ["ipykernel_launcher", *arguments, ends_with]
        import_module("numpy").random.seed()  # not the state of every other kernel
        set_limits(dict(limits))
        import_module("ipykernel.kernelapp").launch_new_instance()
    finally:
        os._exit(0)


def set_limits(limits: Limits) -> None:
    """Limit what this process may take."""
    for number, most in limits.items():
        resource.setrlimit(number, (most, most))


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as line:
        serve_forks(line)
