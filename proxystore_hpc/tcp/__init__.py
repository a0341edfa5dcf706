"""The TCP path: objects for whoever has a socket and nothing else.

The client needs the standard library only. The server runs as a program of its own, beside an owner
or as a gateway; see `proxystore_hpc.tcp.server`.
"""
