"""What scientists pass around, each by the real library."""

from __future__ import annotations

import datetime
import gc
from typing import Any

import numpy as np
import pytest

from proxystore_hpc.exceptions import SerializationError
from proxystore_hpc.serialize import plan

ROWS = 30_000


def in_stream(obj: Any) -> int:
    """Bytes that were copied before the copy into the block."""
    return len(plan(obj).segments()[0][1])


@pytest.fixture
def pl() -> Any:
    pytest.importorskip("pyarrow")
    return pytest.importorskip("polars")


@pytest.fixture
def polars_frame(pl: Any) -> Any:
    return pl.DataFrame(
        {
            "f": np.arange(float(ROWS)),
            "i": [None, 1] * (ROWS // 2),
            "s": [f"row {i}, a text of some length" for i in range(ROWS)],
            "c": pl.Series(["a", "b"] * (ROWS // 2), dtype=pl.Categorical),
            "e": pl.Series(["a", "b"] * (ROWS // 2), dtype=pl.Enum(["b", "a"])),
            "l": [[1, 2], []] * (ROWS // 2),
            "d": pl.Series([datetime.date(2024, 1, 1)] * ROWS),
            "t": pl.Series([1] * ROWS, dtype=pl.Datetime("us", "UTC")),
            "st": [{"a": 1, "b": "x"}] * ROWS,
        }
    )


def test_polars_frames(pl: Any, polars_frame: Any, through: Any) -> None:
    assert in_stream(polars_frame) < 20_000
    for obj in (polars_frame, polars_frame["s"], polars_frame["f"]):
        result = through(obj)
        assert type(result) is type(obj)
        assert result.equals(obj)
        assert result.dtype == obj.dtype if isinstance(obj, pl.Series) else True
    assert through(polars_frame).schema == polars_frame.schema
    nested = through({"frames": [polars_frame], "lambda": lambda x: x + 1})
    assert nested["frames"][0].equals(polars_frame)
    assert nested["lambda"](1) == 2


def test_a_slice_of_a_polars_frame_takes_its_own_bytes_only(
    polars_frame: Any, through: Any
) -> None:
    part = polars_frame.slice(100, 10)
    assert plan(part).nbytes < 20_000
    assert through(part).equals(part)


def test_polars_frames_that_arrow_cannot_hold(pl: Any, through: Any) -> None:
    for obj in (
        pl.DataFrame(),
        pl.DataFrame({"a": []}),
        pl.DataFrame({"i": pl.Series([1, 2], dtype=pl.Int128)}),
        pl.DataFrame({"d": pl.Series(["1.25"]).cast(pl.Decimal(10, 2)), "n": [None], "b": [True]}),
        pl.Series("name", [1, 2, 3]),
    ):
        result = through(obj)
        assert result.equals(obj)
        if isinstance(obj, pl.DataFrame):
            assert result.schema == obj.schema
    with pytest.raises(SerializationError, match="Object"):
        through(pl.DataFrame({"o": [object()]}, schema={"o": pl.Object}))


def test_arrow_tables(through: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"f": np.arange(float(ROWS)), "s": [f"text {i}" for i in range(ROWS)]})
    assert in_stream(table) < 10_000
    assert through(table).equals(table)
    batch = table.to_batches()[0]
    assert through([batch])[0].equals(batch)
    for part in (table.slice(10, 5), batch.slice(10, 5)):
        assert plan(part).nbytes < 10_000
        result = through(part)
        assert type(result) is type(part)
        assert result.equals(part)
    assert through(table["s"]).equals(table["s"])


def test_pandas(through: Any) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "f": np.arange(float(ROWS)),
            "s": ["x", "a longer text"] * (ROWS // 2),
            "c": pd.Categorical(["a", "b"] * (ROWS // 2)),
            "t": pd.date_range("2024", periods=ROWS, freq="s", tz="UTC"),
            "n": pd.array([1, None] * (ROWS // 2), dtype="Int64"),
        },
        index=pd.MultiIndex.from_product([["p", "q"], range(ROWS // 2)]),
    )
    if pd.__version__ >= "3":  # before, texts are Python objects
        assert in_stream(frame) < 100_000
    pd.testing.assert_frame_equal(through(frame), frame)
    result = through(frame, writable=True)
    result.iloc[0, 0] = 5
    assert result.iloc[0, 0] == 5
    for part in (frame["t"], frame["s"], frame.index, frame.iloc[3:5]):
        assert through(part).equals(part)


def test_xarray(through: Any) -> None:
    xr = pytest.importorskip("xarray")
    data = xr.Dataset(
        {"t": (("x", "y"), np.random.default_rng(0).random((300, 100)), {"units": "K"})},
        coords={"x": np.arange(300), "y": np.arange(100) / 3},
        attrs={"title": "a field"},
    )
    assert in_stream(data) < 10_000
    result = through(data)
    xr.testing.assert_identical(result, data)
    xr.testing.assert_identical(through(data["t"]), data["t"])
    assert not result["t"].values.flags.writeable
    result = through(data, writable=True)
    result["t"][0, 0] = 5
    assert result["t"][0, 0] == 5


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def test_tensors(torch: Any, through: Any) -> None:
    for dtype in (
        "float32", "float64", "float16", "bfloat16", "complex64", "int8", "uint8", "int64", "bool",
    ):  # fmt: skip
        tensor = (torch.arange(5000) % 7).to(getattr(torch, dtype)).reshape(50, 100)
        assert in_stream(tensor) < 1000
        result = through(tensor)
        assert result.dtype is tensor.dtype
        assert torch.equal(result, tensor)
        result[0, 0] = 1  # a copy, as tensors know no read-only memory
        part = through([tensor.t()[3:5], tensor[0, 0], torch.empty(0, 3)])
        assert torch.equal(part[0], tensor.t()[3:5])
        assert part[1] == tensor[0, 0]
        assert part[2].shape == (0, 3)


def test_a_writable_tensor_lies_in_the_stored_memory(torch: Any, store: Any, through: Any) -> None:
    from proxystore_hpc.serialize import loads

    block = store(torch.zeros(5000))
    result = loads(block, writable=True)
    result[:] = 7
    assert (loads(block) == 7).all()
    del block
    gc.collect()
    assert (result == 7).all()


def test_models_and_unusual_tensors(torch: Any, through: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(100, 50), torch.nn.ReLU(), torch.nn.Linear(50, 2))
    assert in_stream(model) < 20_000
    again = through(model)
    inputs = torch.ones(3, 100)
    assert torch.equal(again(inputs), model(inputs))
    again(inputs).sum().backward()  # its parameters still want gradients
    assert all(parameter.grad is not None for parameter in again.parameters())
    weights = through(model.state_dict())
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    leaf = torch.ones(2000, requires_grad=True)
    assert through(leaf).requires_grad
    sparse = torch.eye(50).to_sparse()
    assert torch.equal(through(sparse).to_dense(), torch.eye(50))
    conjugate = torch.full((2000,), 1 + 2j).conj()
    assert torch.equal(through(conjugate), conjugate)


def test_tied_parameters_stay_tied(torch: Any, through: Any) -> None:
    model = torch.nn.Module()
    model.a = torch.nn.Parameter(torch.ones(3000))
    model.b = model.a
    again = through(model)
    assert again.a is again.b
