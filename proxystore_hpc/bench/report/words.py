"""What the operations are, in words for the report."""

from __future__ import annotations

from proxystore_hpc.bench.contestant import Operation

__all__ = ["ABOUT"]

ABOUT = {
    Operation.EXCHANGE: "An array is stored in one process and becomes an array in another.",
    Operation.GET: "An array that is stored already becomes one in another process.",
    Operation.PUT: "An array is stored where another process could get it.",
    Operation.PUT_THERE: "An array is stored in the memory of another process.",
    Operation.ECHO: "Bytes go to a procedure of another process and come back.",
    Operation.STREAM: "Items pass from a producer to a consumer; time of one item.",
    Operation.FUTURE: "A result is set until another process that waits for it has it.",
    Operation.TASK: "A no-op is run by an executor with an array as its argument.",
    Operation.RESOLVE: "A proxy that arrived as a pickle is unpickled and used.",
    Operation.EXISTS: "Another process is asked whether it has an object.",
    Operation.EVICT: "An object of this process is thrown away.",
    Operation.BATCH: "Arrays of another process are got in one call; time of one array.",
    Operation.MANY_TO_ONE: "One process gets arrays of several owners in turn; time of one array.",
    Operation.ONE_TO_MANY: "Several processes get the array of one owner at once; time of one get.",
    Operation.ALL_TO_ALL: "Each of several processes gets the array of each other; time of one.",
    Operation.WEAK: "Pairs of processes get an array of the full size each, at once; time of one.",
    Operation.STRONG: "Pairs share the bytes of one size; time until all have arrived.",
    Operation.CALL: "A procedure of another process that does nothing is called.",
    Operation.PIPELINE: "The same with many calls in flight; time of one call.",
    Operation.CLIENTS: "Several clients call one server at once; time of one call at one of them.",
    Operation.PULL: "Memory that another process exposes is read.",
    Operation.PUSH: "Memory that another process exposes is written.",
    Operation.CREATE: "A small object is stored and a proxy of it is made.",
    Operation.USE: "An item is read from a small object that is there already.",
    Operation.START: "A new process starts until it could use what is named.",
    Operation.MEMORY: "Private resident memory of a process that holds what is named.",
    Operation.OPEN: "All ranks of a job open a store together; time of the slowest.",
    Operation.SLOWDOWN: "How many times as long a computation takes as alone.",
}
