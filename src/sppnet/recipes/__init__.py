"""Scripts that make what the package ships and shows: the demonstration data and the builtin network."""
