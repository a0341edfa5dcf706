"""The benchmark suite: every door and its peers, measured in one run against the machine's limits.

`proxystore-hpc bench` runs it. What takes part is a `Contestant`; contestants of one operation and
size take turns, so that whatever the machine does besides hits all of them alike.
"""
