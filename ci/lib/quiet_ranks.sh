#!/usr/bin/env bash
# Runs a command as one rank of an MPI job: rank 0 prints and writes the report, others go to a file.
#   quiet_ranks.sh FILE COMMAND ...
rank=${OMPI_COMM_WORLD_RANK:-${PMIX_RANK:-${PMI_RANK:-0}}}
file=$1
shift
if [ "$rank" = 0 ]; then
    export PYTEST_ADDOPTS="${PYTEST_ADDOPTS:-} ${QUIET_RANKS_REPORT:+--junitxml=$QUIET_RANKS_REPORT}"
else
    exec >"$file$rank.txt" 2>&1
fi
exec "$@"
