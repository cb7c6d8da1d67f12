"""On a GPU: all clients in stacks (vmap) against one after the other, and the share of a bare loop's throughput.

    python benchmarks/gpu.py                  # 20, 100 and 400 clients of cnn32 and cnn28
    python benchmarks/gpu.py --device cpu --clients 4 --images 20    # does it run at all?

Prints a table and writes data/results/speed/gpu.csv. Figures are valid for the hardware in the first line.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from speed import images, machine, report, seconds_of_rounds

from fedecouple_lite import make, net_for, split


def bare_images_per_second(net, data, batch: int, steps: int) -> float:
    """Plain training of one model at a large batch: what the device can do with this net."""
    extractor, classifier = net.extractor.to(data.y.device), net.classifier.to(data.y.device)
    parameters = [*extractor.parameters(), *classifier.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.01)
    x, y = data.images(torch.arange(min(batch, len(data.y)), device=data.y.device)), data.y[:batch]
    wait = torch.cuda.synchronize if data.y.is_cuda else (lambda: None)
    for step in range(steps + 1):
        if step == 1:  # the first one warms up
            wait()
            began = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(classifier(extractor(x)), y).backward()
        optimizer.step()
    wait()
    return steps * len(y) / (time.perf_counter() - began)


def main(device: str, clients: list[int], count: int, repeats: int) -> list[dict]:
    """One row per net and number of clients."""
    rows = []
    for size, channels in ((32, 3), (28, 1)):
        for n in clients:
            federation = split(images(size, channels, n * count), n, "iid", test_share=2 / count).to(device)
            net = net_for(federation.data.in_shape, 10)
            method = make("fedrep", epochs=2, batch_size=min(50, count))
            times = {
                b: statistics.median(seconds_of_rounds(method, net, federation, b, repeats)) for b in ("loop", "vmap")
            }
            bare = bare_images_per_second(net, federation.data, 2048, 20 if device != "cpu" else 2)
            trained = sum(map(len, federation.train)) * method.epochs  # the classifier's epoch runs on cached features
            row = {
                "net": f"cnn{size}",
                "clients": n,
                "loop s": round(times["loop"], 3),
                "vmap s": round(times["vmap"], 3),
            }
            row |= {"vmap is faster by": round(times["loop"] / times["vmap"], 1)}
            rows.append(row | {"share of bare throughput": round(trained / times["vmap"] / bare, 3)})
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 100, 400])
    parser.add_argument("--images", type=int, default=600, help="training images of each client")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else "CPU"
    print(machine(), name, sep="; ")
    report("gpu", [row | {"device": name} for row in main(given.device, given.clients, given.images, given.repeats)])
