"""Offsets of the fields of the args struct of a kernel call and of the tables that it points to.

All threads of a call share one args struct, int64 ``[FIELDS]``. Its address is the only argument of the
machine code; the interpreter is not involved until all threads have returned. Kernels read field ``F`` of a
struct at ``address`` as ``word(address, F)``. Offsets, strides and steps are in bytes.
"""

from __future__ import annotations

# Incremented by the threads: the next unit and the index of the next thread. Then the number of units, the
# number of units per run, the address of the scratch memory of the first thread, and its bytes per thread.
NEXT_UNIT, NEXT_THREAD, UNIT_COUNT, UNIT_RUN, SCRATCH, SCRATCH_BYTES = range(6)
# Addresses of the tables below, and the number of levels.
MAPS, BOXES, UNITS, LEVELS, LEVEL_COUNT = range(6, 11)
CHANNELS, BINS = range(11, 13)
# Number of doublings of rows and of columns in the tables of maxima: 1, 1 for the block only. Then the step
# along a row of such a table, or 0 if four entries cover every bin.
ROW_DOUBLINGS, COLUMN_DOUBLINGS, ACROSS = range(13, 16)
# Whether to write the output past the caches; bytes from one feature gradient to the next, 0 if all boxes
# share one; maximum number of blocks of a map that are written together; number of boxes that are scored
# together.
STREAMED, ROW_BYTES, BLOCK_RUN, BOX_RUN = range(16, 20)
# Number of NaNs of either sign of the type; whether a kernel found a NaN that it does not support.
NAN_COUNT, FOUND_NAN = range(20, 22)
# Addresses of the features, their gradients or sums; of the table of the gradients of the maps; of the argmax
# indices; of the weights.
ROWS, GRADIENTS, ARGMAX, WEIGHTS = range(22, 26)
# Cache lines of the memory of the next unit to prefetch at each bin that is pooled from cells; number of
# groups of 4 classes of the weights; whether the pyramid is 3, 2, 1 and four entries cover every bin.
PREFETCH_LINES, CLASS_FOURS, IS_COARSE = range(26, 29)
FIELDS = 29

# One map.
MAP_ADDRESS, MAP_HEIGHT, MAP_WIDTH, MAP_CHANNEL_STEP, MAP_ROW_STEP, MAP_CELL_STEP = range(6)
MAP_FIELDS = 6
MAP_BYTES = 8 * MAP_FIELDS
# One box: the offset of its first cell in a block, the addresses of its bin edges along columns and rows. Bin
# edges are int64 [bins per side, 2]: the offsets of the first and the last entry to read.
BOX_CORNER, BOX_COLUMNS, BOX_ROWS = range(3)
BOX_FIELDS = 3
BOX_BYTES = 8 * BOX_FIELDS
EDGE_BYTES = 16
# One level, in descending order: bins per side; the index of the level from which it is derived, or its own;
# the number of bins per side of that level in a bin, or the index of its own bin edges; the number of bins
# before it.
LEVEL_SIDE, LEVEL_PARENT, LEVEL_SOURCE, LEVEL_FIRST_BIN = range(4)
LEVEL_FIELDS = 4
LEVEL_BYTES = 8 * LEVEL_FIELDS
# One unit of work: a block of channels of one map with a run of its boxes.
UNIT_MAP, UNIT_CHANNEL, UNIT_BOX, UNIT_BOX_STOP = range(4)
UNIT_FIELDS = 4
UNIT_BYTES = 8 * UNIT_FIELDS
# One unit of scoring: a run of channels of one map with a run of its boxes, and the offset of their sums.
SCORE_MAP, SCORE_CHANNEL, SCORE_CHANNEL_STOP, SCORE_BOX, SCORE_BOX_STOP, SCORE_TARGET = range(6)
SCORE_FIELDS = 6
SCORE_BYTES = 8 * SCORE_FIELDS

# The args struct of products for linear models, after the fields up to SCRATCH_BYTES. Addresses of the rows,
# the indices of the used rows, the vectors, the factors, the offsets that are added to products times
# factors, the results of these, and the totals.
LINEAR_ROWS, LINEAR_INDEX, LINEAR_VECTORS, LINEAR_FACTORS = range(6, 10)
LINEAR_OFFSETS, LINEAR_MULTIPLES, LINEAR_TOTALS = range(10, 13)
# Number of used rows, their length, number of groups of 4 vectors, rows per unit.
LINEAR_USED, LINEAR_LENGTH, LINEAR_FOURS, LINEAR_EACH = range(13, 17)
LINEAR_FIELDS = 17
