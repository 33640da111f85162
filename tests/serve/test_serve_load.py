"""A short form of the load test; tests/serve/load.py is the long one."""

from __future__ import annotations

import pytest
from load import requests, run_load


@pytest.mark.parametrize("clients", [1, 12])
def test_every_request_is_answered(url: str, clients: int) -> None:
    sent = requests(30, clients)
    load = run_load(url, clients, sent)
    assert load.wrong == 0, load
    assert load.statuses["200"] == sum(one.good for one in sent)
