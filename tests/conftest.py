"""What all tests share: tiers, skip reasons, stacks of what hangs, and a check for what is left."""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "ci" / "lib"))

import process_stacks  # noqa: E402
import two_nodes  # noqa: E402

IN_MPI_JOB = int(os.environ.get("OMPI_COMM_WORLD_SIZE", os.environ.get("PMI_SIZE", "0"))) > 0
SHARED_MEMORY = Path("/dev/shm")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("proxystore_hpc")
    group.addoption("--tier", choices=("quick", "full"), default="quick", help="which tests run")
    group.addoption(
        "--full-share",
        metavar="K/N",
        help="of the full tests, run only the K-th of N shares (0 <= K < N), chosen by name",
    )
    group.addoption(
        "--over",
        choices=("mpi", "nodes"),
        help="suites that have two sides: between two ranks of this job, or from node 1 to node 2",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("pytest_mpi"):
        config.addinivalue_line("markers", "mpi(min_size): needs mpirun and pytest-mpi")
    config.stash[SHM_BEFORE] = shared_memory_files()
    # Each test has its own limit; a single example may take long on a busy machine.
    hypothesis.settings.register_profile("busy", deadline=None)
    hypothesis.settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def state_of_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Key pairs that servers make are not those of the user who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_nodes = why_no_nodes()
    for item in items:
        if "full" in item.keywords and (reason := why_not_in_tier(config, item.nodeid)):
            item.add_marker(pytest.mark.skip(reason=reason))
        if "nodes" in item.keywords and no_nodes:
            item.add_marker(pytest.mark.skip(reason=no_nodes))


def why_not_in_tier(config: pytest.Config, nodeid: str) -> str | None:
    """Why a test of the full tier does not run now."""
    share = config.getoption("--full-share")
    if share:
        k, _, n = share.partition("/")
        if zlib.crc32(nodeid.encode()) % int(n) != int(k):
            return f"full tier: outside share {share}"
        return None
    return None if config.getoption("--tier") == "full" else "full tier: run with --tier full"


def why_no_nodes() -> str | None:
    """Why ci/two_nodes cannot make nodes here."""
    try:
        two_nodes.check_rights()
    except two_nodes.NodesError as error:
        return f"nodes: {error}"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Adds the stacks of all child processes to the report of a test that ran out of time."""
    report = yield
    if call.excinfo is not None and "Timeout" in str(call.excinfo.value)[:40]:
        lines: list[str] = []
        children = process_stacks.descendants(os.getpid())
        process_stacks.dump(children, lines.append)
        process_stacks.kill(children)
        report.sections.append(("stacks of the child processes, now ended", "\n".join(lines)))
    return report


SHM_BEFORE = pytest.StashKey[set[str]]()


def shared_memory_files() -> set[str]:
    """Names in /dev/shm that belong to this package."""
    try:
        names = os.listdir(SHARED_MEMORY)
    except OSError:
        return set()
    return {name for name in names if "pshpc" in name or "proxystore" in name}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run if processes or shared memory are left behind."""
    if IN_MPI_JOB:
        return  # Other ranks are alive, and rightly so.
    left = sorted(shared_memory_files() - session.config.stash[SHM_BEFORE])
    deadline = time.monotonic() + 3.0
    while running := [
        pid for pid in process_stacks.descendants(os.getpid()) if process_stacks.is_running(pid)
    ]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    left += [process_stacks.describe(pid) for pid in running]
    process_stacks.kill(running)
    if left:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line("")
            for what in left:
                reporter.write_line(f"LEFT BEHIND: {what}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
