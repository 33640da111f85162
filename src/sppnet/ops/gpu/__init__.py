"""Pyramid pooling on a GPU, in Triton; imported only if there is a GPU."""
