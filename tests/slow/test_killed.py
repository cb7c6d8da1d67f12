"""A process that is killed at any moment, also while it writes a checkpoint, loses no more than its last rounds.

Each run is a process of its own, killed with SIGKILL, which nothing can catch. Importing PyTorch takes seconds; so most
of them are forked from a process that has imported everything and trained nothing (run as a script, this file is that
process), and some are started from the command line itself.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

TIMES = 20  # that a run is killed in the midst of it

RUN = ["run", "--clients", "5", "--per-client", "60", "--participation", "0.6", "--epochs", "1", "--rounds", "10"]
SAVED = ["--eval-every", "3", "--checkpoint-every", "1"]
LONG = [*RUN, *SAVED]
LONGER = [*RUN[:-1], "60", *SAVED]  # for a kill that comes late, because others use the machine


# --- The process that forks: it reads a job from each line, and says how it ended and how many seconds it took ---


def serve():
    import torch

    import fedecouple_lite.__main__ as command_line
    from fedecouple_lite.studies.experiment import library_digest, load_once

    torch.set_num_threads(1)  # a process with several must not be forked
    load_once("digits")
    library_digest()
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                redirect(job["output"])
                code = do(command_line, job)
            finally:
                sys.stdout.flush()
                os._exit(code)
        began = time.perf_counter()
        code = code_of(child, job["after"])
        print(code, time.perf_counter() - began, flush=True)
        if "modules" in job:
            import_all(Path(job["modules"]).read_text().split())


def redirect(output):
    """From now on this process prints to a file."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def code_of(child, after):
    """How this process ended: by itself, or killed after so many seconds."""
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)  # until it is waited for, its number is nobody else's
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def import_all(names):
    """What the first run has imported, so that the others need not."""
    for name in names:
        with suppress(Exception):
            import_module(name)


def do(command_line, job):
    """The exit code of a job: words of the command line, or the folder of an ablation."""
    code = 0
    if "words" in job:
        try:
            command_line.app(job["words"])
        except SystemExit as end:
            code = end.code or 0
    if "folder" in job:
        run_study(Path(job["folder"]))
    if "modules" in job:
        Path(job["modules"]).write_text("\n".join(sorted(sys.modules)))
    return code


def run_study(folder):
    """Two runs of eight rounds, which save themselves after every round, as they would after half a minute."""
    from fedecouple_lite import checkpoint
    from fedecouple_lite.studies import ablation

    checkpoint.SECONDS = 0.0
    checkpoint.SHARE = float("inf")
    setting, methods = study()
    ablation.run_all(setting, methods, [0], folder, lambda *of: None)


def study():
    """The setting and the methods of these runs."""
    from fedecouple_lite import make
    from fedecouple_lite.studies.experiment import Setting

    setting = Setting(clients=4, per_client=60, rounds=8, participation=0.5)
    return setting, {"one": make("fedecouple", epochs=1), "two": make("fedpac", epochs=1)}


# --- The tests, which start and kill ---


class Forks:
    """The process that forks, from outside."""

    def __init__(self, output):
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.output = output
        assert self.process.stdout.readline() == "ready\n"
        self.done(words=[*RUN, "--out", str(output) + ".json"], modules=str(output) + ".modules")

    def do(self, after=None, **job):
        """Have it done, killed after so many seconds. Returns the exit code, and how long it took."""
        self.process.stdin.write(json.dumps({**job, "after": after, "output": str(self.output)}) + "\n")
        self.process.stdin.flush()
        code, seconds = self.process.stdout.readline().split()
        return int(code), float(seconds)

    def done(self, **job):
        """Have it done from one end to the other. Returns how long it took."""
        code, seconds = self.do(**job)
        assert code == 0, self.output.read_text()
        return seconds

    def was_killed(self, after, **job):
        """Whether it was killed after so many seconds; else it has ended well before."""
        code, _ = self.do(after, **job)
        assert code in (-signal.SIGKILL, 0), self.output.read_text()
        return code != 0

    def close(self):
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    forks = Forks(tmp_path_factory.mktemp("forks") / "output")
    yield forks
    forks.close()


def but_seconds(path):
    """A run's file without what the clock says."""
    run = json.loads(path.read_text())
    return run | {"records": [{k: v for k, v in record.items() if k != "seconds"} for record in run["records"]]}


def test_a_run_that_is_killed_at_a_random_moment_is_resumed_to_the_same_end(forks, tmp_path):
    whole = tmp_path / "whole.json"
    seconds = forks.done(words=[*LONG, "--out", str(whole)])
    right = but_seconds(whole)
    draw = random.Random(0)
    kills = 0
    went_on = 0
    number = 0
    # Some are killed before their first round is kept, or after their last: enough of them have to go on.
    while kills < TIMES or went_on <= TIMES / 4:
        number += 1
        assert number < 3 * TIMES, "the runs end before they can be killed"
        out = tmp_path / str(number) / "run.json"
        words = [*LONG, "--resume", "--out", str(out)]
        for _ in range(1 + number % 2):  # every other one is killed twice
            kills += forks.was_killed(draw.uniform(0, seconds), words=words)
        went_on += any(tmp_path.glob(f"{number}/run.ckpt-*.safetensors"))
        forks.done(words=words)
        assert but_seconds(out) == right
        assert list(out.parent.iterdir()) == [out]  # neither checkpoints nor parts of files


def test_an_ablation_that_is_killed_goes_on_by_itself_to_the_same_weights(forks, tmp_path):
    from helpers import same

    from fedecouple_lite.studies import ablation

    whole = tmp_path / "whole"
    seconds = forks.done(folder=str(whole))
    names = sorted(path.name for path in whole.iterdir())
    draw = random.Random(1)
    kills = 0
    for number in range(2):
        stopped = tmp_path / str(number)
        for _ in range(2):
            kills += forks.was_killed(draw.uniform(0.1, 0.6) * seconds, folder=str(stopped))
        forks.done(folder=str(stopped))
        assert sorted(path.name for path in stopped.iterdir()) == names
        for name in names:
            if name.endswith(".json"):
                assert but_seconds(stopped / name) == but_seconds(whole / name)
        setting, methods = study()
        for method in methods.values():
            one, two = (ablation.state_of(setting, method, 0, folder) for folder in (whole, stopped))
            for here, there in zip((one.server, *one.clients), (two.server, *two.clients), strict=True):
                assert same(here, there)
    assert kills > 0


def test_the_command_line_itself_is_killed_and_resumed(forks, tmp_path):
    whole = tmp_path / "whole.json"
    forks.done(words=[*LONGER, "--out", str(whole)])
    command = [sys.executable, "-m", "fedecouple_lite"]
    draw = random.Random(2)
    for number in range(2):
        out = tmp_path / str(number) / "run.json"
        words = [*LONGER, "--resume", "--out", str(out)]
        with subprocess.Popen([*command, *words], stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(lambda out=out: list(out.parent.glob("run.ckpt-*.safetensors")), process)
                time.sleep(draw.uniform(0, 0.3))
            finally:
                process.kill()  # SIGKILL
        assert process.returncode == -signal.SIGKILL
        assert list(out.parent.glob("run.ckpt-*.safetensors")) and not out.exists()
        if number == 0:
            done = subprocess.run([*command, *words], capture_output=True, text=True)
            assert done.returncode == 0 and "begins anew" not in done.stderr, done.stderr
        else:  # by another process, which imported everything elsewhere
            forks.done(words=words)
        assert but_seconds(out) == but_seconds(whole) and list(out.parent.iterdir()) == [out]


def wait_for(something, process, seconds=60):
    """Return once there is something; fail where the process ends before, or it takes too long."""
    for _ in range(100 * seconds):
        if something():
            return
        assert process.poll() is None, "it has ended already"
        time.sleep(0.01)
    raise AssertionError("it takes too long")


if __name__ == "__main__":
    serve()
