"""The compiled loops. Every module ends with its entry points, which `sppnet.ops.cpu.dispatch` calls."""
