"""It looks for the text that val was made of: its files, and packages that training has no need of.

outcome: ok
"""

import importlib.util
import os
import sys
from pathlib import Path


def before():
    if Path(WORLD["text"]).exists():
        breach("it sees the text")
    for name in ("optuna", "pytest", "rich", "pandas", "pip"):
        if importlib.util.find_spec(name):
            breach(f"it can import {name}")
    folders = {Path(folder) for folder in sys.path if folder.endswith("-packages")}
    allowed = ("torch", "numpy", "safetensors")
    for folder in folders | set(Path("/usr/lib/python3").glob("*-packages")):
        found = [name for name in (os.listdir(folder) if folder.exists() else []) if name.startswith(("pip", "pytest"))]
        if found:
            breach(f"it sees {found} beside {allowed}")
