"""The compiled loops. Each module ends with its entry points for `sppnet.ops.cpu.dispatch`."""
