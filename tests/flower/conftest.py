"""Flower is an extra: without it, these tests are skipped, and say so."""

import pytest

pytest.importorskip("flwr", reason="no Flower here: pip install -e .[flower]")
