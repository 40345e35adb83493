"""It looks for the text that val was made of: its files, and packages that training has no need of.

outcome: ok
"""

import importlib
import os
import sys
from pathlib import Path


def before():
    places = [Path(WORLD["text"]), Path(WORLD["text"], "00.txt")]
    places += [Path(folder, "pip/__init__.py") for folder in sys.path if folder.endswith("-packages")]
    places += Path("/usr/lib/python3/dist-packages").glob("*.py")
    places += Path(os.__file__).parent.glob("ensurepip/_bundled/*.whl")
    for place in places:
        try:
            os.listdir(place) if place.is_dir() else place.read_bytes()
        except OSError:
            continue
        breach(f"it can read {place}")
    for name in ("optuna", "pytest", "rich", "pandas", "pip"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError):
            continue
        breach(f"it can import {name}")
