"""On a GPU: all clients in stacks (vmap) against one after the other, and the share of a bare loop's throughput.

    python benchmarks/gpu.py                  # 20, 100 and 400 clients of cnn32 and cnn28
    python benchmarks/gpu.py --device cpu --clients 4 --images 20    # does it run at all?

Prints a table and writes data/results/speed/gpu.csv. Figures are valid for the hardware in the first line.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from speed import Row, images, machine, report, seconds_of_rounds, write_table

from fedecouple_lite import Dataset, DecoupledNet, make, net_for, split


def bare_images_per_second(net: DecoupledNet, data: Dataset, batch: int, steps: int) -> float:
    """Plain training of one model at a large batch: what the device can do with this net."""
    device = data.y.device
    extractor = net.extractor.to(device)
    classifier = net.classifier.to(device)
    optimizer = torch.optim.SGD([*extractor.parameters(), *classifier.parameters()], 0.01)
    index = torch.arange(min(batch, len(data.y)), device=device)
    x = data.images(index)
    y = data.y[index]
    wait = waiter(device)
    for step in range(steps + 1):
        if step == 1:  # the first one warms up
            wait()
            began = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(classifier(extractor(x)), y).backward()
        optimizer.step()
    wait()
    return steps * len(y) / (time.perf_counter() - began)


def waiter(device: torch.device) -> Callable[[], None]:
    """What waits until the device has done all that it was told."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def measure(size: int, channels: int, device: str, clients: int, count: int, repeats: int) -> Row:
    """`clients` clients of `count` training images each, with the net for images of this size."""
    data = images(size, channels, clients * count)
    federation = split(data, clients, "iid", test_share=2 / count).to(device)
    net = net_for(federation.data.in_shape, 10)
    method = make("fedrep", epochs=2, batch_size=min(50, count))
    loop = statistics.median(seconds_of_rounds(method, net, federation, "loop", repeats))
    vmap = statistics.median(seconds_of_rounds(method, net, federation, "vmap", repeats))
    bare = bare_images_per_second(net, federation.data, batch=2048, steps=2 if device == "cpu" else 20)
    # Images through the whole net in a round: the classifier's epoch runs on cached features.
    trained = method.epochs * sum(len(index) for index in federation.train)
    return {
        "net": f"cnn{size}",
        "clients": clients,
        "loop s": round(loop, 3),
        "vmap s": round(vmap, 3),
        "vmap is faster by": round(loop / vmap, 1),
        "share of bare throughput": round(trained / vmap / bare, 3),
    }


def main(device: str, clients: Sequence[int], count: int, repeats: int) -> Iterator[Row]:
    """One row per number of clients and net, the cheapest first."""
    for number in clients:
        for size, channels in ((28, 1), (32, 3)):
            yield measure(size, channels, device, number, count, repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 100, 400])
    parser.add_argument("--images", type=int, default=600, help="images of each client; two of them are for testing")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else "CPU"
    print(machine(), name, sep="; ")
    command = f"python benchmarks/gpu.py --images {given.images} --repeats {given.repeats}"
    rows = []
    for row in main(given.device, given.clients, given.images, given.repeats):
        print(row, flush=True)
        rows.append({**row, "device": name})
        write_table("gpu", rows, command)  # after every row: a machine may be lent for less time than all take
    report("gpu", rows, command)
