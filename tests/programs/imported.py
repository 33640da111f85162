"""Import a module and print, as JSON, which of the given other modules came with it.

usage: imported.py MODULE OTHER...
"""

import json
import sys
from importlib import import_module

import_module(sys.argv[1])
print(json.dumps(sorted(set(sys.argv[2:]) & set(sys.modules))))
