"""What hooks see where an engine calls itself."""

from __future__ import annotations

import logging

import pytest

from proxystore_hpc.rpc import Request


def test_stages_of_handlers(engine, itself):
    engine.register("good", lambda: 1)
    engine.register("bad", lambda: 1 / 0)
    seen = []
    remove = engine.on_event(seen.append)
    itself.call("good")
    with pytest.raises(ZeroDivisionError):
        itself.call("bad")
    remove()
    itself.call("good")
    handlers = [event for event in seen if event.stage == "handler"]
    assert [(e.name, e.phase) for e in handlers] == [
        (name, phase) for name in ("good", "bad") for phase in ("start", "end")
    ]
    assert isinstance(handlers[3].error, ZeroDivisionError)
    assert handlers[1].error is None
    assert all(event.peer == engine.address for event in seen)
    assert len(seen) == 8


def test_requests_as_handlers_see_them(engine, itself):
    seen = {}

    @engine.register(provider_id=4)
    def look(request: Request, x):
        seen["caller"] = request.caller
        seen["provider"] = request.provider_id
        seen["one_way"] = request.one_way
        seen["cancelled"] = request.cancelled
        seen["left"] = request.remaining()
        seen["same"] = request.endpoint == itself
        seen["engine"] = request.engine is engine
        seen["text"] = repr(request)
        return x

    assert itself.call("look", 3, provider_id=4, timeout=20) == 3
    assert 0 < seen.pop("left") <= 20.01
    assert "'look'" in seen.pop("text")
    assert seen == {
        "caller": engine.address,
        "provider": 4,
        "one_way": False,
        "cancelled": False,
        "same": True,
        "engine": True,
    }


def test_one_way_failures_are_logged_with_the_peer(engine, itself, caplog):
    from support.procfs import wait_until

    engine.register("bad", lambda: 1 / 0)
    with caplog.at_level(logging.WARNING, "proxystore_hpc.rpc"):
        engine.rpc("bad", one_way=True).on(itself)()
        wait_until(lambda: engine.address in caplog.text, "it is logged")
    assert "ZeroDivisionError" in caplog.text
