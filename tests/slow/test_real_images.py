"""Runs on real images that take too long for a unit test."""

import json

from test_cli import RUN, call


def test_real_cifar10_as_it_is_and_augmented(real_images, tmp_path):
    words = ["--dataset", real_images / "cifar10.npz", "--partition", "mixture", "--share", 0.2, "--per-client", 60]
    losses = {}
    for name, augment in (
        ("plain", []),
        ("augmented", ["--augment", "crop_flip"]),
        ("again", ["--augment", "crop_flip"]),
    ):
        result = call(*RUN, *words, *augment, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
        written = json.loads((tmp_path / name).read_text())
        assert written["setting"].get("augment") == (augment or [None, None])[1]
        losses[name] = written["records"][0]["loss"]
    assert losses["augmented"] == losses["again"] != losses["plain"]
