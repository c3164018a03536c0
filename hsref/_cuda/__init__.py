"""CUDA kernels from the same per-point sources; imported only on request."""
