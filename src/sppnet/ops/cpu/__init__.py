"""Pyramid pooling on the CPU: plans and memory (Python), kernels (numba), instructions for them (LLVM)."""
