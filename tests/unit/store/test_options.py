from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc import Store
from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.store.options import Options

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(["pool_capacity", "port", "spin", "put_token", "ucx"]) | st.text()


def test_what_is_left_out() -> None:
    assert Options.parse({}) == Options(0, 0, 100e-6, 300.0, "", None)


def test_sizes_are_read_as_everywhere() -> None:
    assert Options.parse({"pool_capacity": "64MiB"}).pool_capacity == 64 << 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_capcity": 1}, "do you mean 'pool_capacity'"),
        ({"rdma": 1}, "there are pool_capacity, port, spin, lease, put_token, ucx"),
        ({"pool_capacity": "lots"}, "pool_capacity: 'lots' is no size"),
        ({"port": 65536}, "port: 65536 is no TCP port"),
        ({"port": "80"}, "port: '80' is no TCP port"),
        ({"spin": -1}, "spin: seconds"),
        ({"spin": "1ms"}, "spin: seconds"),
        ({"put_token": "secret"}, "put_token: .*hexadecimal"),
        ({"put_token": 5}, "put_token: "),
        ({"ucx": "tcp"}, "ucx: a mapping"),
        ({"ucx": {"tsl": "tcp"}}, "ucx: there is no option 'tsl'; do you mean 'tls'"),
        ({"ucx": {"tls": ["tcp"]}}, "tls: .* wrong type"),
        ({"ucx": {"tuning": "RNDV_THRESH=1"}}, "tuning: .* wrong type"),
    ],
)
def test_mistakes_are_told(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Store("options", options=options)


@given(st.dictionaries(NAMES, JSON, max_size=3))
def test_anything_is_understood_or_refused(options) -> None:
    try:
        parsed = Options.parse(options)
    except ConfigError:
        return
    assert parsed.pool_capacity >= 0
    assert 0 <= parsed.port <= 65535
