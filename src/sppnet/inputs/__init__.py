"""Files that other programs wrote: decoding, numbers, paths, formats; every fault is a `UserError`."""

__all__: list[str] = []
