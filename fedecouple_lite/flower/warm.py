"""Flower's short processes, forked from one that has imported what each of them imports.

A SuperNode starts a process for every message, and that imports PyTorch and Flower anew: three seconds of a core, for a
round that takes a tenth of one here. So on one machine the commands that Flower looks for on its PATH are small scripts
that ask this process for a fork. What it has imported is PyTorch and Flower, none of this library's own modules: those
come from the app that Flower has sent, as they do elsewhere. Linux only; elsewhere Flower starts its own.

Run as a program, this file is the process that forks; `commands` writes the scripts.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path

# Flower's command -> module and function (its entry points).
COMMANDS = {
    "flwr-clientapp": ("flwr.supernode.cli", "flwr_clientapp"),
    "flwr-serverapp": ("flwr.superlink.cli", "flwr_serverapp"),
    "flower-superexec": ("flwr.supercore.cli", "flower_superexec"),
}
MODULES = (
    "torch",
    "safetensors.torch",
    "numpy.random",
    "flwr.clientapp",
    "flwr.serverapp",
    "flwr.supernode.cli",
    "flwr.superlink.cli",
    "flwr.supercore.cli",
    "flwr.supernode.runtime.run_clientapp",
    "flwr.superlink.runtime.run_serverapp",
)
AVAILABLE = sys.platform == "linux"
LONGEST = 2**20  # bytes of a request
READY = "ready"

# The script in place of a command: it hands over its arguments and files, and waits for the fork's end. No module but
# the standard library's, so that it starts in no time.
ASK = """
import json, os, socket, sys
path, command, *arguments = sys.argv[1:]
request = {"command": command, "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
with socket.socket(socket.AF_UNIX) as asking:
    asking.connect(path)
    socket.send_fds(asking, [json.dumps(request).encode()], [0, 1, 2])
    asking.shutdown(socket.SHUT_WR)
    code = asking.recv(16)
sys.exit(int(code or b"1"))
"""


def commands(folder: Path, path: Path) -> None:
    """Write the scripts that ask the process listening at the socket `path`; the folder is to stand first in PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    ask = folder / "ask.py"
    ask.write_text(ASK)
    for command in COMMANDS:
        words = [sys.executable, "-I", "-S", str(ask), str(path), command]
        script = folder / command
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        script.chmod(0o755)


def serve(path: Path) -> None:
    """Import, say so on standard output, and fork for every request until this process is ended."""
    import torch

    torch.set_num_threads(1)  # a process with threads of its own must not be forked
    for module in MODULES:
        import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks: none is left as a zombie
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(64)
        print(READY, flush=True)
        while True:
            asking, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                answer(asking)
            asking.close()


def answer(asking: socket.socket) -> None:
    """In the fork: take the request's place, run its command, send the exit code, and end."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        content, files, _, _ = socket.recv_fds(asking, LONGEST, 3)
        while more := asking.recv(LONGEST):
            content += more
        code = run(json.loads(content), files)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asking.sendall(str(code).encode())
        os._exit(code)


def run(request: dict, files: list[int]) -> int:
    """The exit code of a command, with the request's files, folder, environment and arguments."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [request["command"], *request["arguments"]]
    module, function = COMMANDS[request["command"]]
    try:
        getattr(import_module(module), function)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
