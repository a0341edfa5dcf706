from __future__ import annotations

import json
import pickle
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxystore_hpc.exceptions import ConfigError
from proxystore_hpc.store.config import ConnectorConfig, StoreConfig
from proxystore_hpc.utils import toml
from proxystore_hpc.utils.imports import get_object_path, import_from_path
from proxystore_hpc.utils.sizes import format_size, parse_size

FULL = {
    "name": "full",
    "connector": {"kind": "file", "options": {"store_dir": "/tmp/x", "clear": True, "n": [1, 2]}},
    "serializer": "json.dumps",
    "deserializer": "json.loads",
    "cache_size": 4,
    "cache_bytes": 2**20,
    "metrics": True,
    "populate_target": False,
    "auto_register": True,
    "capacity": 4 * 2**30,
    "doors": ["shm", "ucx"],
    "timeout": 2.5,
    "interface": "ib0",
    "progress": "polling",
    "grace": 0.001,
    "options": {"ucx": {"tls": "tcp", "tuning": {"RNDV_THRESH": "1m"}}},
}


class Key(NamedTuple):
    name: str


class DictConnector:
    """Third-party: `from_config` undoes what `config` does, which the constructor cannot."""

    def __init__(self, pairs):
        self.pairs = pairs

    def config(self):
        return {"encoded": list(self.pairs.items())}

    @classmethod
    def from_config(cls, config):
        return cls(dict(config["encoded"]))


def encode(obj):
    return repr(obj).encode()


def test_defaults_are_those_of_proxystore():
    config = StoreConfig("s")
    assert (config.cache_size, config.metrics, config.populate_target, config.auto_register) == (
        16,
        False,
        True,
        False,
    )
    assert config.serializer is None
    assert config.deserializer is None


def test_sizes_are_parsed():
    config = StoreConfig("s", capacity="4GiB", cache_bytes="1 MB")
    assert config.capacity == 4 * 2**30
    assert config.cache_bytes == 10**6


@pytest.mark.parametrize("values", [FULL, {"name": "small"}], ids=["everything", "defaults"])
def test_every_form_holds_everything(values, tmp_path):
    config = StoreConfig.from_dict(values)
    assert StoreConfig.from_dict(config.to_dict()) == config
    assert StoreConfig.from_json(config.to_json()) == config
    config.write_toml(tmp_path / "deeper" / "config.toml")
    assert StoreConfig.from_toml(tmp_path / "deeper" / "config.toml") == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert json.loads(config.to_json()) == config.to_dict()


def test_functions_are_written_as_paths():
    config = StoreConfig("s", serializer=encode, deserializer=json.loads)
    values = config.to_dict()
    assert values["deserializer"] == "json.loads"
    again = StoreConfig.from_dict(values)
    assert again.get_deserializer() is json.loads
    assert config.get_serializer() is encode
    assert StoreConfig("s").get_serializer() is None


def test_a_lambda_cannot_be_written():
    with pytest.raises(ConfigError, match=r"serializer.*top level"):
        StoreConfig("s", serializer=lambda obj: b"").to_dict()


@pytest.mark.parametrize(
    ("path", "told"), [("json.nothing", "nothing"), ("json.decoder", "no fun")]
)
def test_a_path_that_leads_nowhere(path, told):
    with pytest.raises(ConfigError, match=told):
        StoreConfig("s", serializer=path).get_serializer()


@pytest.mark.parametrize(
    ("wrong", "near"), [("cache", "cache_"), ("chache_size", "cache_size"), ("door", "doors")]
)
def test_an_unknown_field_names_the_nearest(wrong, near):
    with pytest.raises(ConfigError, match=f"no field '{wrong}': did you mean '{near}"):
        StoreConfig.from_dict({"name": "s", wrong: 1})


def test_an_unknown_field_of_the_connector_is_refused():
    with pytest.raises(ConfigError, match="'options'"):
        StoreConfig.from_dict({"name": "s", "connector": {"kind": "file", "option": {}}})


@pytest.mark.parametrize(
    "values",
    [
        {"name": 5},
        {"name": ""},
        {"cache_size": -1},
        {"cache_size": "many"},
        {"cache_bytes": "4 parsecs"},
        {"capacity": -1},
        {"capacity": 1.5},
        {"doors": "shm"},
        {"doors": []},
        {"doors": [1]},
        {"timeout": -1},
        {"timeout": "soon"},
        {"timeout": float("nan")},
        {"grace": True},
        {"progress": "busy"},
        {"metrics": "yes"},
        {"interface": 5},
        {"options": []},
        {"connector": "file"},
        {"connector": {"kind": 5}},
        {"connector": {}},
        {"serializer": 5},
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_name(values):
    (field,) = values
    inner = "kind" if field == "connector" and values[field] != "file" else field
    with pytest.raises(ConfigError, match=inner):
        StoreConfig.from_dict({"name": "s", **values})


def test_a_name_is_needed():
    with pytest.raises(ConfigError, match="name"):
        StoreConfig.from_dict({})
    with pytest.raises(ConfigError, match="mapping"):
        StoreConfig.from_dict([("name", "s")])


@pytest.mark.parametrize("text", ["{", "name = 'x'\nname = 'y'"])
def test_files_that_are_not_valid(text, tmp_path):
    (tmp_path / "c").write_text(text)
    with pytest.raises(ConfigError, match="not valid TOML"):
        StoreConfig.from_toml(tmp_path / "c")
    with pytest.raises(ConfigError, match="not valid JSON"):
        StoreConfig.from_json(text)


def test_a_connector_is_made_by_from_config():
    connector = DictConnector({"a": 1})
    config = ConnectorConfig(get_object_path(DictConnector), connector.config())
    assert config.get_connector().pairs == {"a": 1}


@pytest.mark.parametrize("name", ["file", "local", "multi", "redis"])
def test_our_connectors_have_short_names(name):
    path = f"proxystore_hpc.connectors.{name}.{name.capitalize()}Connector"
    for kind in (name, f"{name.capitalize()}Connector", path):
        assert get_object_path(ConnectorConfig(kind).get_connector_type()) == path


def test_proxystore_s_own_connectors_have_short_names():
    pytest.importorskip("proxystore")
    from proxystore.connectors.endpoint import EndpointConnector

    assert ConnectorConfig("endpoint").get_connector_type() is EndpointConnector


def test_an_unknown_connector_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'redis'"):
        ConnectorConfig("reddis").get_connector_type()


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.one_of(
                st.booleans(),
                st.integers(-(2**63), 2**63 - 1),
                st.floats(allow_nan=False),
                st.text(max_size=8),
            ),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_toml_reads_what_it_writes(document):
    assert toml.loads(toml.dumps(document)) == document


def test_toml_refuses_other_values():
    with pytest.raises(ValueError, match=r"a\.b is a object"):
        toml.dumps({"a": {"b": object()}})


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("4 B", 4),
        ("1k", 1024),
        ("1KiB", 1024),
        ("1kB", 1000),
        ("1.5MiB", 1572864),
        (" 2 gb ", 2 * 10**9),
        ("0.1GB", 10**8),
        ("3T", 3 * 2**40),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_parse_size(text, nbytes):
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "4 XB", "-1", "1e3", "4 G B", -1, True, None, 1.0])
def test_parse_size_refuses(text):
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (10 * 2**20, "10.0 MiB"),
     (512 * 2**30, "512 GiB"), (2**50, "1024 TiB")],
)  # fmt: skip
def test_format_size(nbytes, text):
    assert format_size(nbytes) == text


@given(st.integers(0, 2**60))
def test_sizes_of_whole_bytes_are_exact(nbytes):
    assert parse_size(str(nbytes)) == parse_size(f"{nbytes}B") == nbytes


def test_dotted_paths():
    for obj in (Key, DictConnector.config, json.loads, json.JSONDecoder):
        assert import_from_path(get_object_path(obj)) is obj
    with pytest.raises(ValueError, match="top level"):
        get_object_path(lambda: 0)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("json", "dotted path"),
        ("json..loads", "dotted path"),
        ("nowhere_at_all.x", "no module 'nowhere_at_all'"),
        ("json.loads.nothing", "'nothing'"),
    ],
)
def test_paths_that_lead_nowhere(path, told):
    with pytest.raises(ImportError, match=told):
        import_from_path(path)


def test_a_module_that_fails_to_import_is_told(tmp_path, monkeypatch):
    (tmp_path / "broken_here.py").write_text("import missing_thing_of_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="missing_thing_of_it"):
        import_from_path("broken_here.name")
