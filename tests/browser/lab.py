"""Servers for browser tests, with nothing of the user's own settings, and what can be done in JupyterLab's page."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
STARTS = 60  # seconds that a server may take to answer


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def served(command, folder, log, answers_at, env):
    """Run a server until the end of the `with`; it has begun to answer when that begins. log: a file for its words."""
    with open(log, "w") as words:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=words, stderr=words)
    try:
        end = time.monotonic() + STARTS
        while True:
            try:
                urllib.request.urlopen(answers_at).close()
                break
            except urllib.error.HTTPError:  # there is no such page, but there is somebody who says so
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.2)
        yield
    finally:
        server.terminate()  # shuts its kernels down, too
        server.wait(30)


@contextmanager
def lab_in(folder, **environment):
    """JupyterLab on a folder; its address. environment: for its kernels."""
    port = free_port()
    options = ("--ServerApp.token=", "--ServerApp.password=", "--LabApp.expose_app_in_browser=True", "--no-browser")
    options += ("--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0")
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | environment
    own = folder.with_name(folder.name + "-settings")
    own.mkdir(exist_ok=True)
    for name in ("CONFIG", "DATA", "RUNTIME"):
        env[f"JUPYTER_{name}_DIR"] = str(own / name)
    for name in ("SETTINGS", "WORKSPACES"):
        env[f"JUPYTERLAB_{name}_DIR"] = str(own / "settings")
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "jupyterlab", *options]
    with served(command, folder, own / "log", address + "/api", env):
        yield address


# --- In the page ---


def open_lab(page, address):
    """Load JupyterLab, which takes seconds, without the notebooks that were open before."""
    page.set_default_timeout(60_000)
    page.goto(f"{address}/lab?reset")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget")


def open_notebook(page, name):
    """Open a notebook in JupyterLab, and wait until its kernel is there."""
    page.evaluate("async path => { await window.jupyterapp.commands.execute('docmanager:open', {path}) }", name)
    page.wait_for_function("name => window.jupyterapp.shell.currentWidget?.context?.path === name", arg=name)
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel")
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready }")


def close_notebook(page):
    """End its kernel, which would go on, and close its tab."""
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown() }")
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.dispose() }")  # does not ask whether to save


def run_all(page):
    """Run all cells; whether none failed."""
    return page.evaluate("async () => await window.jupyterapp.commands.execute('notebook:run-all-cells')")


def restart(page):
    """Restart the kernel, without a question."""
    page.evaluate(
        "async () => { const context = window.jupyterapp.shell.currentWidget.sessionContext;"
        "await context.session.kernel.restart(); await context.ready; }"
    )


def save(page):
    """Write the notebook, with what its cells show."""
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.save() }")
