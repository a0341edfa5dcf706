"""What ProxyStore's authors published, for figures of ours to stand beside.

SC'23 (doi 10.1145/3581784.3607047), section 5.1. The medians are of the raw data that belong to it,
github.com/proxystore/sc23-evaluation at f4dce2d: five tasks of each size, `input_set_ms` and
`input_get_ms` of data/1-proxystore-with-faas-rdma, to three digits; and total times of
data/0-proxystore-with-faas.
"""

from __future__ import annotations

__all__ = ["CAVEAT", "ROUND_TRIPS", "SITES", "Medians"]

Medians = dict[str, dict[int, tuple[float, float]]]
"""Seconds of the put and of the get, by connector and bytes."""

CAVEAT = (
    "Published figures are of other machines (Polaris, a supercomputer; Chameleon, a cloud, with "
    "InfiniBand), another year and other versions of everything, and their data were bytes: they "
    "show shapes, not who is faster. Only what ran here, in this run, can be compared."
)

SITES: dict[str, Medians] = {
    "Polaris": {
        "redis": {
            1: (0.284e-3, 0.440e-3),
            10**6: (0.654e-3, 1.80e-3),
            10**8: (46.9e-3, 80.6e-3),
            10**9: (338e-3, 1099e-3),
        },
        "margo": {
            1: (0.722e-3, 0.658e-3),
            10**6: (1.44e-3, 0.924e-3),
            10**8: (49.9e-3, 39.7e-3),
            10**9: (397e-3, 398e-3),
        },
        "ucx": {
            1: (5.18e-3, 3.85e-3),
            10**6: (7.67e-3, 4.51e-3),
            10**8: (128e-3, 59.4e-3),
            10**9: (1321e-3, 516e-3),
        },
        "zmq": {
            1: (1.21e-3, 1.49e-3),
            10**6: (2.64e-3, 2.80e-3),
            10**8: (240e-3, 147e-3),
            10**9: (1971e-3, 1559e-3),
        },
    },
    "Chameleon": {
        "redis": {
            1: (0.326e-3, 0.540e-3),
            10**6: (1.08e-3, 2.82e-3),
            10**8: (114e-3, 367e-3),
            10**9: (1358e-3, 3448e-3),
        },
        "margo": {
            1: (0.835e-3, 0.854e-3),
            10**6: (1.49e-3, 1.44e-3),
            10**8: (165e-3, 218e-3),
            10**9: (1542e-3, 2082e-3),
        },
        "ucx": {
            1: (13.3e-3, 14.3e-3),
            10**6: (19.2e-3, 17.8e-3),
            10**8: (510e-3, 294e-3),
            10**9: (4334e-3, 2697e-3),
        },
        "zmq": {
            1: (1.79e-3, 2.22e-3),
            10**6: (7.49e-3, 5.76e-3),
            10**8: (558e-3, 510e-3),
            10**9: (5761e-3, 4879e-3),
        },
    },
}

ROUND_TRIPS: dict[str, dict[int, float]] = {
    "Globus Compute": {10: 0.470, 10**6: 0.773},
    "with ProxyStore, file": {10: 0.492, 10**6: 0.476, 10**7: 0.454, 10**8: 0.451},
    "with ProxyStore, redis": {10: 0.460, 10**6: 0.450, 10**7: 0.451, 10**8: 0.477},
    "with ProxyStore, endpoint": {10: 0.476, 10**6: 0.459, 10**7: 0.465, 10**8: 0.507},
}
"""Seconds of a no-op task from a login node of Theta to a worker on it, by bytes of its input."""
