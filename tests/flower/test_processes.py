"""Whatever is started is ended, with all that it has started; a port that is taken is not taken from anybody."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from fedecouple_lite.flower.processes import HOST, Failed, Processes, environment, free_ports, is_free, marked

# A process that starts another one in a session of its own, which does not listen to SIGTERM, as Ray's do.
PARENT = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
time.sleep(600)
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("fedecouple_lite.flower.processes.GRACE", 0.5)


def test_grandchildren_in_sessions_of_their_own_are_ended_too(tmp_path, quick):
    with Processes("mark-of-this-test", tmp_path) as processes:
        processes.start("parent", [sys.executable, "-c", PARENT], environment(tmp_path, "mark-of-this-test"), tmp_path)
        processes.wait_until("both are there", lambda: "deaf" in processes.text_of("parent"), 30, ["parent"])
        numbers = processes.running()
        assert len(numbers) == 2
    assert marked("mark-of-this-test") == [] and processes.running() == []
    for number in numbers:
        assert is_gone_or_zombie(number)


def is_gone_or_zombie(number):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True).stdout.strip()
    return state == "" or state.startswith("Z")


def test_an_error_ends_them_too(tmp_path, quick):
    with pytest.raises(ZeroDivisionError), Processes("mark-of-an-error", tmp_path) as processes:
        sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
        processes.start("one", sleeping, environment(tmp_path, "mark-of-an-error"), tmp_path)
        raise ZeroDivisionError
    assert marked("mark-of-an-error") == []


def test_a_process_that_ends_too_early_is_told_with_its_last_words(tmp_path):
    with Processes("mark", tmp_path) as processes:
        processes.start(
            "one", [sys.executable, "-c", "print('cannot'); exit(3)"], environment(tmp_path, "mark"), tmp_path
        )
        with pytest.raises(Failed, match="one has ended with code 3:\ncannot"):
            processes.wait_until("it works", lambda: False, 30, ["one"])


def test_a_process_that_does_not_do_its_work_in_time_is_told(tmp_path):
    with Processes("mark", tmp_path) as processes, pytest.raises(Failed, match=r"after 0.1 seconds .* that it works"):
        processes.wait_until("it works", lambda: False, 0.1)


def test_a_kill_leaves_no_time(tmp_path):
    with Processes("mark", tmp_path) as processes:
        waiting = [sys.executable, "-c", "import time; print('there', flush=True); time.sleep(600)"]
        processes.start("one", waiting, environment(tmp_path, "mark"), tmp_path)
        processes.wait_until("it is there", lambda: "there" in processes.text_of("one"), 30, ["one"])
        process = processes.started["one"]
        began = time.monotonic()
        processes.kill("one")
        assert process.returncode == -signal.SIGKILL and time.monotonic() - began < 5


def test_a_port_that_is_taken_is_passed_over():
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        found = free_ports([port, port])
        assert len(set(found)) == 2 and all(other > port for other in found)
    assert free_ports([port]) == [port]


def test_what_is_no_port_is_refused():
    for port in (0, 65536, "80"):
        with pytest.raises(ValueError, match=f"port={port!r} must be a whole number from 1 to 65535"):
            free_ports([port])


def test_telemetry_is_off_and_no_file_goes_to_the_users_folder(tmp_path):
    of_flower = environment(tmp_path, "mark")
    assert of_flower["FLWR_TELEMETRY_ENABLED"] == "0" and of_flower["RAY_USAGE_STATS_ENABLED"] == "0"
    assert of_flower["FLWR_HOME"] == str(tmp_path)
    assert of_flower["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
