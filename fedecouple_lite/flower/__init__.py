"""The same methods on Flower, a distributed engine: one process for the server, one for each client, on many machines.

A method does not change: a ClientApp calls the library's own `client_round`, a ServerApp its `aggregate`, and the
randomness comes from (seed, round, client) as everywhere. So a run on Flower ends in the server's tensors of the
in-process run, to the bit (backend "loop" or "threads").

Needs the extra `flower`. Nothing below this package imports it.
"""
