"""Pyramid pooling on a GPU, in Triton: imported only where there is one."""
