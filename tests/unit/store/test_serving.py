"""What configurations say of servers and gateways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc import Store
from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.store.config import StoreConfig
from proxystore_hpc.store.serving import Gateway, Serving, gateways
from proxystore_hpc.tcp.endpoints import TcpEndpoint

PIN = "0123456789abcdef" * 2
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def test_servers():
    assert Serving.parse(True) == Serving()
    assert Serving.parse(True).listen == "127.0.0.1:0"
    assert Serving.parse("node1:8443") == Serving(listen="node1:8443")
    given = {"listen": "[::1]:0", "tls": True, "put_token": "00ff", "limits": {"rate": 1000}}
    assert Serving.parse(given) == Serving(**given)


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("login1:8443", TcpEndpoint("login1", 8443, authority=True, gateway=True)),
        ("127.0.0.1:8443", TcpEndpoint("127.0.0.1", 8443, gateway=True)),
        ("[::1]:8443", TcpEndpoint("::1", 8443, gateway=True)),
        (
            {"address": "login1:8443", "pin": PIN},
            TcpEndpoint("login1", 8443, bytes.fromhex(PIN), gateway=True),
        ),
        (
            {"address": "127.0.0.1:8443", "pin": PIN},
            TcpEndpoint("127.0.0.1", 8443, bytes.fromhex(PIN), gateway=True),
        ),
        ({"address": "login1:80", "plain": True}, TcpEndpoint("login1", 80, gateway=True)),
        (
            {"address": "localhost:443", "plain": False},
            TcpEndpoint("localhost", 443, authority=True, gateway=True),
        ),
    ],
)
def test_gateways(given, endpoint):
    assert Gateway.parse(given).endpoint == endpoint


@pytest.mark.parametrize("given", [None, "login1:8443", {"address": "login1:8443"}])
def test_several_gateways(given):
    assert len(gateways(given)) == (given is not None)
    assert len(gateways([given, "login2:8443"] if given else [])) == (2 if given else 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tcp": 8443}, "tcp: true, host:port or a mapping"),
        ({"tcp": "node1"}, "write host:port"),
        ({"tcp": {"listne": "a:1"}}, "tcp: there is no option 'listne'; do you mean 'listen'"),
        ({"tcp": {"tls": "yes"}}, "tcp: tls: 'yes' is of the wrong type"),
        ({"tcp": {"cert": "a.pem"}}, "cert and key belong together"),
        ({"tcp": {"put_token": "secret"}}, "tcp: put_token: "),
        ({"gateway": 5}, "gateway: host:port, a mapping or a list"),
        ({"gateway": "login1"}, "write host:port"),
        ({"gateway": ["login1:0"]}, "gateway: port"),
        ({"gateway": {"pin": PIN}}, "gateway: its address is missing"),
        ({"gateway": {"address": "a:1", "pin": "xyz"}}, "gateway: pin: "),
        ({"gateway": {"address": "a:1", "pin": "abcd"}}, "gateway: pin: it has 16 bytes"),
        ({"gateway": {"address": "a:1", "pin": PIN, "plain": True}}, "leave plain= out"),
        ({"gateway": {"address": "a:1", "plain": "no"}}, "gateway: plain: "),
        ({"gateway": {"adress": "a:1"}}, "do you mean 'address'"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(ConfigError, match=message):
        Store("wrong", **options)


def test_every_form_of_a_configuration_holds_them(tmp_path):
    config = StoreConfig(
        "served", tcp={"listen": "a:1", "limits": {"rate": 5}}, gateway={"address": "b:2"}
    )
    assert StoreConfig.from_json(config.to_json()) == config
    config.write_toml(tmp_path / "store.toml")
    assert StoreConfig.from_toml(tmp_path / "store.toml") == config
    assert StoreConfig("s", tcp=False) == StoreConfig("s")


@given(JSON)
def test_anything_is_understood_or_refused(given):
    for parse in (Serving.parse, gateways):
        try:
            parse(given)
        except ConfigError:
            pass
