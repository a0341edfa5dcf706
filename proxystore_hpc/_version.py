"""The version, in the one place that setup, the package and the command line read."""

__version__ = "0.1.0"
