"""Runs every app.py named on the command line in one process, and says at which address each is served.

``app.py=MODEL`` runs one with the variable that names its model.

Importing Gradio and torch takes longer than all pages together. Needs Gradio; run by ``test_pages``.
"""

import json
import os
import runpy
import sys
import time
from functools import partialmethod

import gradio

addresses = {}
launch = gradio.Blocks.launch
gradio.Blocks.launch = partialmethod(launch, prevent_thread_lock=True, quiet=True)
for argument in sys.argv[1:]:
    name, _, os.environ["IM_MODEL"] = argument.partition("=")
    page = runpy.run_path(name, run_name="__main__")["page"]
    addresses[argument] = page.local_url
print(json.dumps(addresses), flush=True)
while True:
    time.sleep(60)
