"""Colmena's queues and task server as an executor: its one method calls what it is given."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from colmena.exceptions import TimeoutException
from colmena.queue import PipeQueues
from colmena.task_server.local import LocalTaskServer


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The method."""
    return function(*args, **kwargs)


class ColmenaPool(Executor):
    """Runs functions in worker processes of a task server on this machine.

    Open it before a store: the server is forked.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self._queues = PipeQueues(keep_inputs=False)
        self._server = LocalTaskServer(self._queues, [call], threads=False, num_workers=workers)
        self._server.start()
        self._numbers = itertools.count()
        self._futures: dict[int, Future[Any]] = {}
        self._ending = False
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As any executor's."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        number = next(self._numbers)
        self._futures[number] = future
        with self._sending:
            self._queues.send_inputs(
                function, *args, input_kwargs=kwargs, method="call", task_info={"number": number}
            )
        return future

    def _receive(self) -> None:
        while self._futures or not self._ending:
            try:
                result = self._queues.get_result(timeout=0.1)
            except TimeoutException:
                continue
            future = self._futures.pop(result.task_info["number"])
            if result.success:
                future.set_result(result.value)
            else:
                future.set_exception(RuntimeError(str(result.failure_info)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the server when all tasks are done."""
        self._ending = True
        self._thread.join()
        self._queues.send_kill_signal()
        self._server.join()
