"""As much of py-mochi-margo as the benchmark's adapter uses, where the real one cannot be had."""
