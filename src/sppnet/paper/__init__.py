"""The tables of the paper, measured on data at hand; ``sppnet reproduce`` prints them."""
