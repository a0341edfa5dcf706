"""Configuration of engines: from arguments, files and the environment, and back."""

from __future__ import annotations

import json
import os

import pytest

from proxystore_hpc.exceptions import ConfigError, DoorUnavailableError
from proxystore_hpc.rpc import Engine, EngineConfig
from proxystore_hpc.rpc.config import make_config, split_address, split_listen
from proxystore_hpc.rpc.opening import find_secret

FULL = {
    "transport": "tcp",
    "listen": "127.0.0.1:7777",
    "name": "full",
    "progress": "polling",
    "spin": 0.001,
    "handlers": {"default": 3, "io": 2},
    "extra_handlers": 8,
    "timeout": 2.5,
    "capacity": 2**26,
    "pool_capacity": 2**25,
    "remote_shutdown": True,
    "secret_file": "/tmp/secret",
    "ucx": {"keepalive": 0.2, "tuning": {"RNDV_THRESH": "64K"}},
    "bulk_door": "ucx",
}


@pytest.mark.parametrize("values", [FULL, {}], ids=["everything", "defaults"])
def test_every_form_holds_everything(values, tmp_path):
    config = EngineConfig.from_dict(values)
    assert EngineConfig.from_dict(config.to_dict()) == config
    config.write_toml(tmp_path / "engine.toml")
    (tmp_path / "engine.json").write_text(config.to_json())
    assert EngineConfig.from_file(tmp_path / "engine.toml") == config
    assert EngineConfig.from_file(str(tmp_path / "engine.json")) == config
    for given in (config, values, tmp_path / "engine.toml", str(tmp_path / "engine.json")):
        assert make_config(given, {}) == config


def test_the_environment(tmp_path):
    EngineConfig.from_dict(FULL).write_toml(tmp_path / "engine.toml")
    prefix = "PROXYSTORE_HPC_ENGINE_"
    config = EngineConfig.from_environment(
        {
            f"{prefix}CONFIG": str(tmp_path / "engine.toml"),
            f"{prefix}HANDLERS": '{"default": 7}',
            f"{prefix}NAME": "12",
            f"{prefix}CAPACITY": "1GiB",
            f"{prefix}REMOTE_SHUTDOWN": "false",
            "OTHER": "1",
        }
    )
    assert config.handlers == {"default": 7}
    assert config.name == "12"
    assert config.capacity == 2**30
    assert config.remote_shutdown is False
    assert config.transport == "tcp"
    assert EngineConfig.from_environment({f"{prefix}HANDLERS": "4"}).handlers == {"default": 4}
    with pytest.raises(ConfigError, match="timeout"):
        EngineConfig.from_environment({f"{prefix}TIMEOUT": "soon"})
    with pytest.raises(ConfigError, match="did you mean 'handlers'"):
        EngineConfig.from_environment({f"{prefix}HANDLER": "1"})


def test_arguments_override_the_environment(monkeypatch):
    monkeypatch.setenv("PROXYSTORE_HPC_ENGINE_TIMEOUT", "5")
    monkeypatch.setenv("PROXYSTORE_HPC_ENGINE_TRANSPORT", "shm")
    with Engine(capacity="16MiB") as engine:
        assert (engine.config.timeout, engine.config.transport) == (5.0, "shm")
    with Engine("shm", timeout=6, capacity="16MiB") as engine:
        assert engine.config.timeout == 6.0
    with Engine(config={"transport": "shm"}, capacity="16MiB") as engine:
        assert engine.config.timeout == 30.0


def test_an_engine_gives_its_configuration_back():
    with Engine("shm", handlers={"io": 2}, name="first", capacity="16MiB", secret="x") as engine:
        config = engine.config
        assert config.handlers == {"default": 1, "io": 2}
        assert "secret" not in json.loads(config.to_json())
        config.handlers["io"] = 9
        assert engine.config.handlers["io"] == 2
        with Engine(config=engine.config) as other:
            assert other.config == engine.config


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"transport": "ib"}, "no transport 'ib'"),
        ({"listen": ":7777"}, "every network"),
        ({"listen": "0.0.0.0:7777"}, "name the interface"),
        ({"listen": "[::]:7777"}, "every network"),
        ({"listen": "10.0.0.5:70000"}, "no TCP port"),
        ({"listen": 7777}, "listen: a str"),
        ({"progress": "fast"}, "progress"),
        ({"handlers": 0}, "from 1 on"),
        ({"handlers": {"io": True}}, "pool 'io'"),
        ({"handlers": {1: 1}}, "handlers"),
        ({"extra_handlers": -1}, "extra_handlers"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"capacity": "much"}, "capacity"),
        ({"remote_shutdown": 1}, "remote_shutdown"),
        ({"spin": 2}, "spin"),
        ({"ucx": {"tsl": "tcp"}}, "did you mean|do you mean"),
        ({"transport": "shm", "ucx": {"tls": "tcp"}}, "without UCX"),
        ({"transport": "shm", "rings": False}, "nothing without them"),
        ({"rings": 1}, "rings"),
        ({"bulk_door": "tcp"}, "one of shm, ucx, socket"),
        ({"bulk_door": "ucx"}, "'auto' does not open the door 'ucx'; ucx, tcp do"),
        ({"transport": "mpi", "bulk_door": "shm"}, "does not open"),
        ({"bulk_door": 1}, "bulk_door: a str"),
        ({"name": ""}, "name"),
    ],
)
def test_what_cannot_be_meant(values, told):
    with pytest.raises(ConfigError, match=told):
        EngineConfig.from_dict(values)


def test_addresses():
    assert split_address("tcp") == ("tcp", None)
    assert split_address("ucx://ib0:7777") == ("ucx", "ib0:7777")
    assert split_listen("ib0") == ("ib0", 0)
    for wrong in ("na+sm", "tcp://", "127.0.0.1:70", ""):
        with pytest.raises(ConfigError, match="neither a transport"):
            split_address(wrong)
    with pytest.raises(ConfigError, match="every network"):
        Engine("tcp://0.0.0.0:0")
    with pytest.raises(ConfigError, match="already"):
        Engine("tcp://127.0.0.1:0", listen="127.0.0.1:1")
    with pytest.raises(ConfigError, match="no field 'handler'"):
        Engine("shm", handler=3)
    with pytest.raises(ConfigError, match="config"):
        Engine("shm", config=3)


def test_secrets(tmp_path):
    config = EngineConfig()
    assert find_secret(config, None) is None
    assert find_secret(config, b"0123456789abcdef") == b"0123456789abcdef"
    assert find_secret(config, "word") == find_secret(config, b"word")
    assert len(find_secret(config, "word")) == 16
    for wrong in ("", b"", 3):
        with pytest.raises(ConfigError, match="secret"):
            find_secret(config, wrong)
    path = tmp_path / "secret"
    path.write_text("word\n")
    config = EngineConfig(secret_file=str(path))
    os.chmod(path, 0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        find_secret(config, None)
    os.chmod(path, 0o600)
    assert find_secret(config, None) == find_secret(EngineConfig(), "word")
    with pytest.raises(ConfigError, match="choose one"):
        find_secret(config, "other")
    with pytest.raises(ConfigError, match="No such file"):
        find_secret(EngineConfig(secret_file=str(tmp_path / "none")), None)


def test_the_transport_mpi_needs_a_job_and_no_rings():
    assert not EngineConfig(transport="mpi").uses_rings
    with pytest.raises(ConfigError, match="does without UCX"):
        EngineConfig(transport="mpi", ucx={"tls": "tcp"})
    with pytest.raises(DoorUnavailableError, match=r"Engine\.from_mpi\(comm\)"):
        Engine("mpi")
