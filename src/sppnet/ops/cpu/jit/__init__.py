"""What touches the internals of numba and LLVM: compilation, vector instructions."""
