"""Kernels that are forked from a warm process: each begins as if it had been started alone."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from jupyter_client.manager import KernelManager
from nbformat.v4 import new_code_cell, new_notebook

from fedecouple_lite.coursework.warm import AVAILABLE, WarmClient, WarmProvisioner, pid_of_warm_process

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="kernels are forked on Linux only")


def printed(tmp_path, *sources, limits=None, **environment):
    """What cells print, each; or its error's name."""
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    client = WarmClient(notebook, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": tmp_path}})
    client.limits = limits
    client.execute(env=dict(os.environ) | environment)
    said = []
    for cell in notebook.cells:
        said += [output.get("text", output.get("ename", "")).strip() for output in cell.outputs]
    return said


def test_a_kernel_has_its_own_folder_environment_limits_and_session(tmp_path):
    (tmp_path / "beside.py").write_text("word = 'imported'")
    limits = {resource.RLIMIT_FSIZE: 12345}
    said = printed(
        tmp_path,
        "import os, resource\nprint(os.getcwd())",
        "print(os.environ.get('OF_THE_SUBMISSION'), os.environ.get('NOT_THERE'))",
        "print(resource.getrlimit(resource.RLIMIT_FSIZE))",
        "print(os.getsid(0) == os.getpid())",
        "import beside\nprint(beside.word)",
        "print(__name__, sorted(name for name in dir() if not name.startswith('_') and name not in ('In', 'Out')))",
        limits=limits,
        OF_THE_SUBMISSION="set",
    )
    assert said[:5] == [str(tmp_path), "set None", "(12345, 12345)", "True", "imported"]
    assert said[5] == "__main__ ['beside', 'exit', 'get_ipython', 'open', 'os', 'quit', 'resource']"


def test_kernels_do_not_share_what_one_does_nor_their_random_numbers(tmp_path):
    first = printed(tmp_path, "import math, numpy\nmath.pi = 3\nprint(math.pi)", "print(numpy.random.random())")
    second = printed(tmp_path, "import math, numpy\nprint(math.pi)", "print(numpy.random.random())")
    assert first[0] == "3" and second[0].startswith("3.14")
    assert first[1] != second[1]


def test_a_kernel_runs_programs_and_is_told_how_they_end(tmp_path):
    assert printed(tmp_path, "import subprocess\nprint(subprocess.run(['sh', '-c', 'exit 7']).returncode)") == ["7"]


def test_a_kernel_can_be_interrupted_killed_and_waited_for(tmp_path):
    manager = KernelManager(kernel_name="python3")
    manager.provisioner = WarmProvisioner(kernel_id=manager.kernel_id, kernel_spec=manager.kernel_spec, parent=manager)
    manager.start_kernel(cwd=str(tmp_path))
    process = manager.provisioner.process
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        message = client.execute("import time\nprint('asleep', flush=True)\ntime.sleep(1000)")
        while client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=30))["parent_header"].get("msg_id") != message:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
        process.kill()
        assert process.wait(timeout=10) == process.poll() == 1
        process.send_signal(signal.SIGTERM)  # nothing happens to one that has ended
        assert not manager.is_alive()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_warm_process_ends_with_the_grader_and_its_kernels_with_it(tmp_path):
    code = """
import sys, time
from jupyter_client.manager import KernelManager
from fedecouple_lite.coursework.warm import WarmProvisioner, pid_of_warm_process
manager = KernelManager(kernel_name="python3")
who = {"kernel_id": manager.kernel_id, "kernel_spec": manager.kernel_spec, "parent": manager}
manager.provisioner = WarmProvisioner(**who)
assert pid_of_warm_process() is None
manager.start_kernel()
client = manager.blocking_client()
client.start_channels()
client.wait_for_ready(timeout=60)
print(pid_of_warm_process(), manager.provisioner.pid, flush=True)
import os
os._exit(0)
"""

    grader = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    pids = [int(word) for word in grader.stdout.split()]
    assert len(pids) == 2, grader.stderr
    end = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.2)


def is_running(pid):
    """Whether there is such a process, zombies not counted."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_of_the_grader_is_in_a_kernel(tmp_path):
    """The process that is forked has been started anew: it holds no module of nbgrader, no data base, no test."""
    said = printed(
        tmp_path,
        "import sys\nprint([name for name in sys.modules if name.startswith(('nbgrader', 'sqlalchemy', 'pytest'))])",
        "print([name for name in sys.modules if name.startswith('fedecouple_lite.coursework')])",
    )
    assert said[0] == "[]"
    assert "grade" not in said[1] and "judge" not in said[1]
    assert pid_of_warm_process() is not None
