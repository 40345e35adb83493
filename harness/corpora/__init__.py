"""Corpora: text, tokenized once into shards that are memory-mapped and frozen.

`prepare` makes one, `find` and `load` open it, `TokenRows` cuts rows from its shards.
"""

from harness.corpora.archive import export, import_
from harness.corpora.catalogue import NAMED, find, prepare, see_that_nothing_is_shown
from harness.corpora.corpus import Corpus, load
from harness.corpora.shards import TokenRows
from harness.corpora.source import SPLITS, Source, Split, Unit

__all__ = [
    "NAMED",
    "SPLITS",
    "Corpus",
    "Source",
    "Split",
    "TokenRows",
    "Unit",
    "export",
    "find",
    "import_",
    "load",
    "prepare",
    "see_that_nothing_is_shown",
]
