"""The argument struct of a kernel call and the tables that it points to: offsets of their fields.

All threads of a call share one args struct, int64 ``[FIELDS]``. A thread enters machine code with nothing but
its address: the interpreter takes no part until all threads are back. Kernels read field ``F`` of a struct at
``address`` as ``word(address, F)``. Offsets, strides and steps are in bytes.
"""

from __future__ import annotations

# Counted up by the threads: the next unit, the next thread's index. Then the number of units, how many are
# taken at a time, the address of the first thread's scratch memory, and its bytes per thread.
NEXT_UNIT, NEXT_THREAD, UNIT_COUNT, UNIT_RUN, SCRATCH, SCRATCH_BYTES = range(6)
# Addresses of the tables below, and the number of levels.
MAPS, BOXES, UNITS, LEVELS, LEVEL_COUNT = range(6, 11)
CHANNELS, BINS = range(11, 13)
# How many doublings of rows and of columns the tables of maxima hold: 1, 1 for no more than the block. Then
# the step along a row of such a table, or 0 where four places cover every bin.
ROW_DOUBLINGS, COLUMN_DOUBLINGS, ACROSS = range(13, 16)
# Whether to write the output past the caches; bytes from one feature gradient to the next, 0 where all boxes
# share one; how many blocks of a map may be written together; how many boxes are scored together.
STREAMED, ROW_BYTES, BLOCK_RUN, BOX_RUN = range(16, 20)
# How many NaNs of either sign the type has; whether a kernel found one that it cannot handle.
NAN_COUNT, FOUND_NAN = range(20, 22)
# Addresses: of the features, their gradients or sums; of the table of the gradients of the maps; of the
# argmax indices; of the weights.
ROWS, GRADIENTS, ARGMAX, WEIGHTS = range(22, 26)
# Cache lines of the next unit's memory to prefetch at each bin that is made from cells; how many times 4
# classes the weights have; whether the pyramid is 3, 2, 1 and four places cover every bin.
PREFETCH_LINES, CLASS_FOURS, IS_COARSE = range(26, 29)
FIELDS = 29

# One map.
MAP_ADDRESS, MAP_HEIGHT, MAP_WIDTH, MAP_CHANNEL_STEP, MAP_ROW_STEP, MAP_CELL_STEP = range(6)
MAP_FIELDS = 6
MAP_BYTES = 8 * MAP_FIELDS
# One box: the offset of its first cell in a block, the addresses of its bin edges along columns and rows. Bin
# edges are int64 [bins per side, 2]: the offsets of the first and the last place to read.
BOX_CORNER, BOX_COLUMNS, BOX_ROWS = range(3)
BOX_FIELDS = 3
BOX_BYTES = 8 * BOX_FIELDS
EDGE_BYTES = 16
# One level, larger ones first: bins per side; the index of the level that it is made from, or its own; how
# many bins per side of that one make one, or where its own bin edges begin; the number of bins before it.
LEVEL_SIDE, LEVEL_PARENT, LEVEL_SOURCE, LEVEL_FIRST_BIN = range(4)
LEVEL_FIELDS = 4
LEVEL_BYTES = 8 * LEVEL_FIELDS
# One unit of work: a block of channels of one map with a run of its boxes.
UNIT_MAP, UNIT_CHANNEL, UNIT_BOX, UNIT_BOX_STOP = range(4)
UNIT_FIELDS = 4
UNIT_BYTES = 8 * UNIT_FIELDS
# One unit of scoring: a run of channels of one map with a run of its boxes, and where their sums begin.
SCORE_MAP, SCORE_CHANNEL, SCORE_CHANNEL_STOP, SCORE_BOX, SCORE_BOX_STOP, SCORE_TARGET = range(6)
SCORE_FIELDS = 6
SCORE_BYTES = 8 * SCORE_FIELDS

# The args struct of products for linear models, after the fields up to SCRATCH_BYTES. Addresses: of the rows,
# of the indices of those to use, of the vectors, of the factors, of what is added to the products times the
# factors, of these, and of the totals.
LINEAR_ROWS, LINEAR_INDEX, LINEAR_VECTORS, LINEAR_FACTORS = range(6, 10)
LINEAR_OFFSETS, LINEAR_MULTIPLES, LINEAR_TOTALS = range(10, 13)
# How many rows are used, their length, how many times 4 vectors, rows per unit.
LINEAR_USED, LINEAR_LENGTH, LINEAR_FOURS, LINEAR_EACH = range(13, 17)
LINEAR_FIELDS = 17
