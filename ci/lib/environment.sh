# Sourced by the scripts in ci/: makes and reuses the virtual environment. Needs no root.
# Sets VENV, PYTHON and PATH. PROXYSTORE_HPC_PYTHON chooses the interpreter for a new environment.

say() { printf '== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PROXYSTORE_HPC_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.10 or newer is needed (Debian, Ubuntu: apt-get install python3 python3-venv python3-dev)"
}

check_tools() {
    local python=$1
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "Python's venv module is missing (Debian, Ubuntu: apt-get install python3-venv)"
    [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
        fail "Python.h is missing (Debian, Ubuntu: apt-get install python3-dev)"
    local compiler
    for compiler in ${CXX:-} c++ g++ clang++; do
        command -v "$compiler" >/dev/null && return
    done
    fail "no C++ compiler was found (Debian, Ubuntu: apt-get install g++), or set CXX"
}

use_venv() {
    VENV=$(cd "$1" && pwd)
    PYTHON=$VENV/bin/python
    export VENV PYTHON VIRTUAL_ENV=$VENV PATH="$VENV/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1
}

# make_environment EXTRAS: the environment with the package installed in editable form. The second
# call is quick: packages are installed again only if pyproject.toml or EXTRAS changed, and the
# incremental build looks after the C++ sources.
make_environment() {
    local extras=$1 venv=${VENV:-.venv} python stamp key
    if [ ! -x "$venv/bin/python" ]; then
        python=$(find_python)
        check_tools "$python"
        say "creating the virtual environment $venv with $("$python" --version)"
        "$python" -m venv "$venv"
    fi
    use_venv "$venv"
    stamp=$VENV/.proxystore_hpc.$(printf '%s' "$extras" | tr ',' '-')
    key=$(cat pyproject.toml proxystore_hpc/_version.py ci/lib/environment.sh | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$key $extras" ]; then
        say "installing the build tools"
        pip_install --upgrade pip
        # The build runs in this environment, so that a later call compiles only what changed.
        pip_install "setuptools>=77" "pybind11>=2.13" $("$PYTHON" ci/buildsys/ucx_sdk.py)
        say "building the extension modules"
        "$PYTHON" setup.py -q build_ext --inplace
        say "installing proxystore_hpc[$extras] (downloads about 150 MB the first time)"
        pip_install --no-build-isolation -e ".[$extras]"
        printf '%s %s' "$key" "$extras" >"$stamp"
    else
        "$PYTHON" setup.py -q build_ext --inplace
    fi
}

pip_install() {
    "$PYTHON" -m pip install -qq --progress-bar off "$@" ||
        fail "pip install $* failed; its own message is above"
}
