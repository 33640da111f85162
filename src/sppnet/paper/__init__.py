"""The tables of the paper (He et al. 2015), measured on local data by ``sppnet reproduce``."""
