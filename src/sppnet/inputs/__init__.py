"""Decode files of other programs: text, numbers, paths and formats. Every fault is a `UserError`."""

__all__: list[str] = []
