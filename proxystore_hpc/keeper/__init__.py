"""The keeper: one process for each node and user that serves what ended processes had stored.

`Store(keep=True)` finds or starts it; `proxystore-hpc keep` runs one in the foreground, asks for
its state, or ends it.
"""
