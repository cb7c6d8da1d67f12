"""Flower on one machine, started and stopped by itself: a simulation, or a SuperLink and SuperNodes on loopback.

    with Loopback(folder, parts) as flower:
        flower.run({"method": "fedecouple", "clients": 4, "rounds": 3})

Everything that Flower writes is in `folder`, everything that it starts is ended when the block is left, and no port is
taken from anybody. On loopback all is as it is between machines: TLS, a key for each SuperNode, and each SuperNode with
nothing but its own client's file.
"""

from __future__ import annotations

import json
import re
import shutil
import ssl
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO
from uuid import uuid4

from .. import __version__
from .certificates import Certificates, NodeKey, make_certificates, make_node_key
from .plan import Plan, Value, defaults, plan_of
from .processes import HOST, Failed, Processes, environment, free_ports
from .warm import AVAILABLE as CAN_FORK
from .warm import READY, commands

LINK, RUN, WARM = "superlink", "run", "warm"  # names of processes; a node's is node-K
LISTENS = "Uvicorn running on"  # in the log of a SuperLink that has its port
LINK_PORT, NODE_PORT = 8000, 9094  # Flower's own, where they are free
STARTS = 120.0  # seconds that a process may take to start on a busy machine
RAY_WAS_LATE = "The current node timed out during startup"  # in a run's log
CONNECTION = "here"  # what Flower's configuration calls our SuperLink
# The app that is run, for Flower: where its two halves are, in this package as it is installed.
APP = f"""[project]
name = "fedecouple-lite"
version = "{__version__}"
description = "Personalized federated learning"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedecouple"

[tool.flwr.app.components]
serverapp = "fedecouple_lite.flower.server_app:app"
clientapp = "fedecouple_lite.flower.client_app:app"

[tool.flwr.app.config]
"""


def as_toml(values: Mapping[str, Value]) -> str:
    """Names and values as lines of TOML."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def node_name(client: int) -> str:
    """What a client's SuperNode is called here."""
    return f"node-{client}"


class Deployment:
    """A SuperLink that is there as long as the context manager is, and runs on it.

    folder: where all files of this deployment go. output: where a run's log is shown while it runs; None shows none.
    """

    def __init__(self, folder: Path, output: IO[str] | None = None):
        self.folder = folder.resolve()
        self.output = output
        self.mark = uuid4().hex
        self.processes = Processes(self.mark, self.folder / "logs")
        self.shortcuts: list[Path] = []  # folders of commands that are forked, not started
        self.port = 0

    def __enter__(self) -> Deployment:
        self.processes.__enter__()
        try:
            self.write_app()
            self.begin()
        except BaseException as error:
            self.processes.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.processes.__exit__(kind, error, trace)

    def begin(self) -> None:
        """Start what runs need. A subclass says what that is."""
        raise NotImplementedError

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a process, with a folder of its own for Flower's files: two processes that unpack the same
        app at once must not do it in the same place."""
        home = self.folder / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        return environment(home, self.mark, self.shortcuts)

    def start(self, name: str, command: Sequence[str], home: str | None = None) -> None:
        """Start one of Flower's programs. home: whose folder of Flower's files it has; None: its own."""
        environment = self.environment(home or name)
        program = shutil.which(command[0], path=environment["PATH"])
        if program is None:
            raise Failed(f"{command[0]} is not there: pip install 'fedecouple-lite[flower]'")
        self.processes.start(name, [program, *command[1:]], environment, Path.cwd())

    def write_app(self) -> None:
        """Write the app, which for Flower is a folder."""
        app = self.folder / "app"
        app.mkdir(parents=True, exist_ok=True)
        (app / "pyproject.toml").write_text(APP + as_toml(defaults()))

    def start_link(self, options: Sequence[str], certificates: Certificates | None) -> None:
        """Start the SuperLink, wait until it answers, and tell `flwr` of it. Started again, it has the same port."""
        database = ["--database", str(self.folder / "superlink.db")]
        if certificates is None:
            transport = ["--insecure"]
        else:
            transport = ["--ssl-ca-certfile", str(certificates.authority)]
            transport += ["--ssl-certfile", str(certificates.server), "--ssl-keyfile", str(certificates.key)]
        command = ["flower-superlink", *database, *transport, *options, "--host", HOST, "--port"]
        if self.port:
            self.start(LINK, [*command, str(self.port)])
        else:
            self.start_on_free_port(command)
        self.processes.wait_until("the SuperLink answers", lambda: self.link_answers(certificates), STARTS, [LINK])
        lines = {"address": f"{HOST}:{self.port}"} | (
            {"insecure": True} if certificates is None else {"root-certificates": str(certificates.authority)}
        )
        home = Path(self.environment(RUN)["FLWR_HOME"])
        text = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n' + as_toml(lines)
        (home / "config.toml").write_text(text)

    def start_on_free_port(self, command: Sequence[str]) -> None:
        """Start the SuperLink on the first port that is free, and still is when the SuperLink takes it."""
        wanted = LINK_PORT
        while not self.port:
            (port,) = free_ports([wanted])
            self.start(LINK, [*command, str(port)])
            self.processes.wait_until("the SuperLink has a port", self.link_has_ended_or_listens, STARTS)
            if self.processes.has_lost_its_port(LINK):
                wanted = port + 1
            else:
                self.port = port

    def link_has_ended_or_listens(self) -> bool:
        """Whether the SuperLink is past the moment at which it takes its port."""
        has_ended = self.processes.started[LINK].poll() is not None
        return has_ended or LISTENS in self.processes.text_of(LINK)

    def link_answers(self, certificates: Certificates | None) -> bool:
        """Whether the SuperLink is ready."""
        scheme = "http" if certificates is None else "https"
        context = None if certificates is None else ssl.create_default_context(cafile=str(certificates.authority))
        without_proxy = urllib.request.ProxyHandler({})
        opener = urllib.request.build_opener(without_proxy, urllib.request.HTTPSHandler(context=context))
        with suppress(OSError), opener.open(f"{scheme}://{HOST}:{self.port}/health", timeout=2) as answer:
            return answer.status == 200
        return False

    def flwr(self, name: str, words: Sequence[str]) -> None:
        """Start a command of Flower's own."""
        self.start(name, ["flwr", *words], home=RUN)

    def submit(self, config: Mapping[str, Value], name: str = RUN, options: Sequence[str] = ()) -> Plan:
        """Start a run with this run configuration, and return at once. ValueError where it cannot be. name: what the
        run is called here; those with different names may run at once."""
        plan = plan_of(config)
        given = {**config, "out": str(plan.out.resolve())}
        file = self.folder / f"{name}.toml"
        file.write_text(as_toml(given))
        app = str(self.folder / "app")
        self.flwr(name, ["run", app, CONNECTION, "--stream", "--run-config", str(file), *options])
        return plan

    def wait(self, plan: Plan, seconds: float | None = None, name: str = RUN) -> list[Path]:
        """Wait for a run that was started, showing its log: the files that it has written, one a method. Failed where
        it does not end well, or in time."""
        shown = 0

        def has_ended() -> bool:
            nonlocal shown
            text = self.processes.text_of(name)
            if self.output is not None:
                self.output.write(text[shown:])
                self.output.flush()
            shown = len(text)
            return self.processes.started[name].poll() is not None

        forever = 10.0**9
        self.processes.wait_until("the run has ended", has_ended, seconds or forever)
        files = []
        for method in plan.methods:
            finished = [path for path in finished_files(plan.out, method) if str(path) in self.processes.text_of(name)]
            if not finished:
                raise Failed(f"the run of {method} did not end well:\n{self.why(name)}")
            files.append(finished[-1])
        return files

    def why(self, name: str = RUN) -> str:
        """What a run's log says of an error; its last lines where it names none."""
        text = self.processes.text_of(name)
        errors = re.findall(r"(?m)^(?:[\w.]+\.)?([A-Z]\w*: .*)$", text)
        return errors[-1] if errors else self.processes.last_lines(name)

    def run(self, config: Mapping[str, Value], seconds: float | None = None) -> list[Path]:
        """`submit` and `wait`."""
        return self.wait(self.submit(config), seconds)


def finished_files(out: Path, name: str) -> list[Path]:
    """The files of a method's finished runs, the newest last."""
    files = []
    for path in out.resolve().glob(f"{name}-*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(path.read_text())["finished"]:
                files.append(path)
    return sorted(files, key=lambda path: path.stat().st_mtime)


class Simulation(Deployment):
    """All nodes in some processes of Ray's on this machine.

    cpus, gpus: what Ray sets aside for one client while it computes, of GPUs also a part; as many clients as the
    machine has room for compute at once.
    """

    def __init__(self, folder: Path, output: IO[str] | None = None, cpus: int = 1, gpus: float = 0.0):
        super().__init__(folder, output)
        self.resources = f"client-resources-num-cpus={cpus} client-resources-num-gpus={gpus}"

    def begin(self) -> None:
        self.start_link(["--simulation"], certificates=None)

    def run(self, config: Mapping[str, Value], seconds: float | None = None) -> list[Path]:
        """`submit` and `wait`; once more where Ray did not start in time: it gives up after half a minute, however busy
        the machine is."""
        try:
            return super().run(config, seconds)
        except Failed:
            if RAY_WAS_LATE not in self.processes.text_of(RUN):
                raise
        return super().run(config, seconds)

    def submit(self, config: Mapping[str, Value], name: str = RUN, options: Sequence[str] = ()) -> Plan:
        clients = plan_of(config).setting.clients
        nodes = f"num-supernodes={clients} {self.resources}"  # Flower has two where nothing is said
        return super().submit(config, name, ["--federation-config", nodes, *options])


class Loopback(Deployment):
    """A SuperLink and a SuperNode for each file of a client's part, in the order of clients."""

    def __init__(self, folder: Path, parts: Sequence[Path], output: IO[str] | None = None):
        super().__init__(folder, output)
        self.parts = [part.resolve() for part in parts]
        self.certificates: Certificates | None = None
        self.keys: list[NodeKey] = []
        self.ports: list[int] = []

    def begin(self) -> None:
        if CAN_FORK:
            self.start_warm()
        self.certificates = make_certificates(self.folder / "certificates")
        self.start_link(["--enable-supernode-auth"], self.certificates)
        for client in range(len(self.parts)):
            self.keys.append(make_node_key(self.folder / "keys", node_name(client)))
        self.register([key.public for key in self.keys])
        self.ports = free_ports([NODE_PORT] * len(self.parts))
        for client in range(len(self.parts)):
            self.start_node(client)
        for client in range(len(self.parts)):
            self.wait_for_node(client)

    def start_warm(self) -> None:
        """Start the process that Flower's short ones are forked from."""
        place = self.folder / "warm"
        listening = place / "socket"
        commands(place, listening)
        script = [sys.executable, "-m", "fedecouple_lite.flower.warm", str(listening)]
        self.processes.start(WARM, script, self.environment(WARM), Path.cwd())
        self.processes.wait_until("Flower is imported", lambda: READY in self.processes.text_of(WARM), STARTS, [WARM])
        self.shortcuts = [place]

    def start_link_again(self) -> None:
        """Start the SuperLink after its end, with the nodes that it knew."""
        self.start_link(["--enable-supernode-auth"], self.certificates)

    def register(self, keys: Sequence[Path]) -> None:
        """Tell the SuperLink of SuperNodes' public keys. Failed where it does not take one."""
        names = []
        for key in keys:
            name = f"register-{key.stem}"
            self.flwr(name, ["supernode", "register", str(key), CONNECTION])
            names.append(name)
        for name in names:
            self.wait_for_end(name)

    def wait_for_end(self, name: str) -> None:
        """Return once a process has ended well. Failed where it has not."""
        process = self.processes.started[name]
        self.processes.wait_until(f"{name} has ended", lambda: process.poll() is not None, STARTS)
        if process.returncode != 0:
            raise Failed(f"{name} has ended with code {process.returncode}:\n{self.processes.last_lines(name)}")

    def start_node(self, client: int) -> None:
        """Start a client's SuperNode."""
        self.start_supernode(node_name(client), self.parts[client], self.ports[client], self.keys[client])

    def restart_node(self, client: int) -> None:
        """Start a client's SuperNode after its end, with a key of its own: the SuperLink takes it for online for a
        minute more, and for so long would not let another one in with the old key."""
        key = make_node_key(self.folder / "keys", f"{node_name(client)}-{uuid4().hex[:8]}")
        self.register([key.public])
        self.keys[client] = key
        self.start_node(client)
        self.wait_for_node(client)

    def start_supernode(self, name: str, part: Path, port: int, key: NodeKey | None) -> None:
        """Start a SuperNode for the client whose part this is."""
        if self.certificates is None:
            raise Failed("there is no SuperLink yet")
        to_link = ["--superlink", f"{HOST}:{self.port}", "--root-certificates", str(self.certificates.authority)]
        known_by = [] if key is None else ["--auth-supernode-private-key", str(key.private)]
        own = ["--host", HOST, "--port", str(port), "--node-config", f"part={json.dumps(str(part))}"]
        self.start(name, ["flower-supernode", *to_link, *known_by, *own])

    def wait_for_node(self, client: int) -> None:
        """Return once the client's SuperNode is connected; somebody who took its port meanwhile has it."""
        name = node_name(client)
        try:
            self.processes.wait_until(
                f"{name} is connected", lambda: CONNECTED in self.processes.text_of(name), STARTS, [name]
            )
        except Failed:
            if not self.processes.has_lost_its_port(name):
                raise
            (self.ports[client],) = free_ports([max(self.ports) + 1])
            self.start_node(client)
            self.wait_for_node(client)


CONNECTED = "SuperNode ID:"  # in a SuperNode's log
