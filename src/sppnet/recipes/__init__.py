"""Scripts that create the files of the package: the demonstration data and the builtin network."""
