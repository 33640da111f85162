"""Compilation and vector instructions: all code that uses internals of numba and LLVM."""
