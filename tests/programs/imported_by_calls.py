"""Run commands of sppnet one after another; print what each printed and which modules had been imported then.

usage: imported_by_calls.py CALLS MODULES, both lists in JSON
"""

import contextlib
import io
import json
import sys

from sppnet.cli import main

found = {}
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        main(words)
    heavy = sorted(set(json.loads(sys.argv[2])) & set(sys.modules))
    found[" ".join(words)] = {"said": said.getvalue(), "imported": heavy}
print(json.dumps(found))
