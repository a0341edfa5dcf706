"""Code of users that any type checker has to understand, without a plugin."""

from __future__ import annotations

from typing_extensions import assert_type

from proxystore_hpc.connectors.file import FileConnector, FileKey
from proxystore_hpc.connectors.protocols import Connector
from proxystore_hpc.factory import SimpleFactory
from proxystore_hpc.proxy import Proxy, ProxyOr, extract, resolve
from proxystore_hpc.store import Store, StoreConfig, get_store


class Model:
    size: int = 3


def use(model: Proxy[Model]) -> None:
    assert_type(extract(model), Model)
    assert_type(model.__proxy_wrapped__, Model)
    resolve(model)
    print(model.size + 1)


def use_either(model: ProxyOr[Model]) -> int:
    return model.size


def make(store: Store) -> None:
    assert_type(store.proxy(Model()), Proxy[Model])
    assert_type(store.proxy_batch([1.0]), list[Proxy[float]])
    use(store.proxy(Model()))
    use_either(Model())
    use(Proxy(SimpleFactory(Model())))
    use(Proxy(Model))
    found = get_store("typed")
    if found is not None:
        assert_type(found, Store)
        assert_type(found.config(), StoreConfig)


def connect(path: str) -> Connector[FileKey]:
    connector = FileConnector(path)
    with Store("typed", connector, populate_target=False) as store:
        store.evict(store.put([1]))
    return connector
