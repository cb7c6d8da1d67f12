"""Measures presets of the benchmark in several processes at once: on a GPU that one small net leaves idle, or on a CPU
with many cores. Each process takes the next row of a table (one method in one cell: its trials, then its seeds).

All write into the folder of runs that five_datasets.py reads. A second call goes on where this one stopped, at its
deadline too: what is lost is at most half a minute of each run that was under way.

    FEDECOUPLE_DATA=folder python benchmarks/side_by_side.py medium --device cuda --processes 16
    python benchmarks/five_datasets.py medium --as-measured

--seconds and --tar are for a machine that is lent for a while: when to stop, and a file to take the runs away in.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from published import RUNS

from fedecouple_lite.studies.benchmark import PRESETS, Preset, cells, check_preset, folder_of_cell, measure_row
from fedecouple_lite.studies.experiment import Setting

SECONDS_TO_STOP = 10  # that a process has to leave a checkpoint, before it is killed


@dataclass(frozen=True)
class Job:
    """One row of a table's cell, and the folder of the cell's runs."""

    preset: Preset
    setting: Setting
    row: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.folder.parent.parent.name}, {self.folder.name}, {self.row}"


def jobs_of(name: str, datasets: Sequence[str] | None, device: str) -> list[Job]:
    """The rows of all cells of the preset `name`, one cell after the other. datasets: in place of the preset's own, and
    in this order."""
    preset = PRESETS[name]
    preset = replace(preset, setting=replace(preset.setting, device=device))
    if datasets is not None:
        preset = replace(preset, datasets=tuple(datasets))
    check_preset(preset)
    jobs = []
    for dataset, partition, setting in cells(preset):
        folder = RUNS / "benchmark" / name / "runs" / folder_of_cell(dataset, partition)
        for row in preset.methods:
            jobs.append(Job(preset, setting, row, folder))
    return jobs


def work(jobs: Sequence[Job], next_job: Any, ended: Any) -> None:
    """What each process does: the next job, until there is none. next_job: a number that all processes share. ended: a
    queue, on which every job's number, seconds and problem ("": none) are put."""
    torch.set_num_threads(1)  # the other cores are for the other processes
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where this script was started in the background
    while True:
        with next_job.get_lock():
            number = next_job.value
            next_job.value += 1
        if number >= len(jobs):
            return
        job = jobs[number]
        began = time.perf_counter()
        problem = ""
        try:
            measure_row(job.preset, job.setting, job.row, job.folder)
        except KeyboardInterrupt:  # told to stop: the run that was under way has left a checkpoint
            return
        except Exception as error:  # the other rows do not depend on this one
            problem = f"{type(error).__name__}: {error}"
        ended.put((number, time.perf_counter() - began, problem))


def run_side_by_side(jobs: Sequence[Job], processes: int, seconds: float) -> list[int]:
    """Do the jobs in so many processes, for at most so many seconds; the numbers of those that were done."""
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    next_job = context.Value("i", 0)
    ended = context.Queue()
    workers: list[BaseProcess] = []
    for _ in range(processes):
        worker = context.Process(target=work, args=(jobs, next_job, ended), daemon=True)
        worker.start()
        workers.append(worker)
    done: list[int] = []
    try:
        while any(worker.is_alive() for worker in workers) and time.perf_counter() - began < seconds:
            time.sleep(0.2)
            done += report(jobs, ended, began)
    finally:
        with next_job.get_lock():
            next_job.value = len(jobs)  # for a process that is only starting, and would not hear that it is to stop
        stop(workers)
    return done + report(jobs, ended, began)


def report(jobs: Sequence[Job], ended: Any, began: float) -> list[int]:
    """Print which jobs have ended since the last call; the numbers of those that went well."""
    done = []
    while not ended.empty():
        number, seconds, problem = ended.get()
        print(f"{time.perf_counter() - began:6.1f} s: {jobs[number]}, {seconds:.1f} s {problem}", flush=True)
        if not problem:
            done.append(number)
    return done


def stop(workers: Sequence[BaseProcess]) -> None:
    """End the processes: as Ctrl-C does, so that each run leaves a checkpoint; then those that have not ended."""
    for worker in workers:
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, signal.SIGINT)
    last = time.perf_counter() + SECONDS_TO_STOP
    for worker in workers:
        worker.join(max(0.0, last - time.perf_counter()))
    for worker in workers:
        if worker.is_alive():
            worker.kill()
            worker.join()


def write_tar(path: Path, names: Sequence[str]) -> None:
    """The runs of these presets as one file, checkpoints left out."""
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            folder = RUNS / "benchmark" / name / "runs"
            for file in sorted(folder.rglob("*")):
                if file.suffix in (".json", ".diverged"):
                    tar.add(file, file.relative_to(RUNS.parent))


def main(words: Sequence[str]) -> None:
    """Measure what the command line says, and print how much of it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", choices=list(PRESETS))
    parser.add_argument("--datasets", type=lambda text: text.split(","), help="comma-separated; the presets' own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which all processes are stopped")
    parser.add_argument("--tar", type=Path, help="where to write all runs at the end, such as runs.tar.gz")
    given = parser.parse_args(words)
    jobs: list[Job] = []
    for name in given.presets:
        jobs += jobs_of(name, given.datasets, given.device)
    done = run_side_by_side(jobs, given.processes, given.seconds)
    print(f"{len(done)} of {len(jobs)} rows are done")
    if given.tar is not None:
        write_tar(given.tar, given.presets)


if __name__ == "__main__":
    main(sys.argv[1:])
