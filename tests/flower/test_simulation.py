"""A simulation of Flower's, in Ray: started once, for five methods."""

import os

from processes_of_flower import ALL_FIVE, SECONDS, check_same_as_in_process

from fedecouple_lite.flower.deployment import Simulation
from fedecouple_lite.flower.processes import marked


def test_five_methods_end_in_the_server_of_the_in_process_loop(tmp_path):
    config = {**ALL_FIVE, "out": str(tmp_path / "out")}
    with Simulation(tmp_path / "flower", cpus=os.cpu_count() or 1) as flower:
        paths = flower.run(config, SECONDS)
    assert flower.processes.running() == [] and marked(flower.mark) == []
    check_same_as_in_process(config, paths)
