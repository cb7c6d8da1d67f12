"""Processes that begin fresh, and soon: forked from one that has imported what they need, and has done nothing else."""

from __future__ import annotations

from multiprocessing import get_all_start_methods, get_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the first is not there on Windows
    from multiprocessing.context import ForkServerContext, SpawnContext


def fresh_processes(module: str) -> ForkServerContext | SpawnContext:
    """Where this process's helpers come from, so that they inherit neither its threads nor its data.

    They are forked from a process that has imported `module`, which takes some seconds; the module that is asked for
    first stays the one. Where processes cannot be forked (Windows) every helper begins anew.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([module])
    return context
