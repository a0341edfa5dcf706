"""Stores of the ranks of an MPI job; `Store.from_mpi` is the way in.

Nothing here imports mpi4py before a communicator is passed in, so MPI_Init is never run by us.
"""
