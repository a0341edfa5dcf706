"""Publishers and subscribers over other brokers, each through its library.

A module needs its library only when something is made of it.
"""
