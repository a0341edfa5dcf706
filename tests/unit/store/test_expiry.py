from __future__ import annotations

import threading

from support import procfs
from support.forking import in_child

from proxystore_hpc.store.connected.expiry import Expiry


class Recorder:
    def __init__(self, error=None):
        self.gone = []
        self.error = error

    def evict(self, keys):
        self.gone += keys
        if self.error:
            error, self.error = self.error, None
            raise error


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "pshpc-expiry"]


def test_keys_go_in_the_order_of_their_time():
    recorder = Recorder()
    expiry = Expiry(recorder.evict)
    expiry.set(["late"], 0.1)
    expiry.set(["early", "too"], 0.02)
    procfs.wait_until(lambda: len(recorder.gone) == 3, "all are gone")
    assert recorder.gone == ["early", "too", "late"]
    procfs.wait_until(lambda: not threads(), "the thread ends")
    expiry.set(["again"], 0)
    procfs.wait_until(lambda: "again" in recorder.gone, "it runs again")


def test_a_time_can_be_moved_and_taken_back():
    recorder = Recorder()
    expiry = Expiry(recorder.evict)
    expiry.set(["moved", "kept", "other"], 0.03)
    expiry.set(["moved"], 3600)
    expiry.set(["kept"], None)
    procfs.wait_until(lambda: recorder.gone, "one is gone")
    expiry.set(["last"], 0.03)
    procfs.wait_until(lambda: "last" in recorder.gone, "another is gone")
    assert recorder.gone == ["other", "last"]
    expiry.clear()
    procfs.wait_until(lambda: not threads(), "the thread ends")


def test_an_error_does_not_end_it():
    recorder = Recorder(RuntimeError("not now"))
    expiry = Expiry(recorder.evict)
    expiry.set(["a"], 0)
    procfs.wait_until(lambda: recorder.gone, "it was tried")
    expiry.set(["b"], 0.01)
    procfs.wait_until(lambda: recorder.gone == ["a", "b"], "it goes on")


def test_it_ends_with_its_store():
    recorder = Recorder()
    expiry = Expiry(recorder.evict)
    expiry.set(["a"], 0.01)
    del recorder
    procfs.wait_until(lambda: not threads(), "the thread ends")


def test_a_child_starts_anew():
    recorder = Recorder()
    expiry = Expiry(recorder.evict)
    expiry.set(["parent's"], 3600)

    def child():
        expiry.set(["child's"], 0)
        procfs.wait_until(lambda: recorder.gone, "it is gone")
        return recorder.gone

    assert in_child(child) == ('["child\'s"]', 0)
    expiry.clear()
