"""A state on disk is the state, or is not there."""

import pytest
from helpers import last, same

from fedecouple_lite import make, rounds
from fedecouple_lite.checkpoint import holds_state, load_state, save_state
from fedecouple_lite.engine import start


@pytest.mark.parametrize("name", ["fedecouple", "ditto", "fedpac", "local"])
def test_a_state_comes_back_as_it_was_and_goes_on(net, federation, tmp_path, name):
    method = make(name, epochs=1)
    options = {"seed": 4, "participation": 0.5}
    state = last(rounds(method, net, federation, rounds=1, **options))
    assert 0 < len(state.joined) < len(federation)  # newcomers share their tensors
    save_state(state, tmp_path / "state", "abc")
    back = load_state(tmp_path / "state", "abc")
    assert (back.round, back.joined, len(back.clients)) == (1, state.joined, len(federation))
    assert same(back.server, state.server)
    for here, there in zip(state.clients, back.clients, strict=True):
        assert same(here, there) and list(here) == list(there)
    whole = last(rounds(method, net, federation, rounds=3, **options))
    assert same(last(rounds(method, net, federation, rounds=3, state=back, **options)).server, whole.server)


def test_a_state_before_the_first_round_can_be_kept(net, federation, tmp_path):
    before = start(make("fedecouple"), net, federation, seed=2)
    save_state(before, tmp_path / "state", "abc")
    back = load_state(tmp_path / "state", "abc")
    assert back.round == 0 and back.joined == frozenset() and same(back.clients[3], before.clients[3])


def test_another_runs_or_a_damaged_file_holds_no_state(net, federation, tmp_path):
    path = tmp_path / "state"
    assert not holds_state(path, "abc")
    save_state(start(make("fedrep"), net, federation), path, "abc")
    assert holds_state(path, "abc") and not holds_state(path, "abd")
    with pytest.raises(ValueError, match="state does not hold this run's state: it is not there, damaged"):
        load_state(path, "abd")
    path.write_bytes(path.read_bytes()[:-10])
    assert not holds_state(path, "abc")
    assert [file.name for file in tmp_path.iterdir()] == ["state"]  # nothing half-written beside it
