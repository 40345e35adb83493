"""The contract at the top of a `train.py`: which numbers may be turned, how far, and how to turn them.

A hyperparameter is an assignment at the top level, `UPPER_CASE = literal` or
`UPPER_CASE = pick(gpu=literal, cpu=literal)`, with a comment on the lines directly above it or behind it. The
comment says what it is and, where it may be searched, ends with its range in brackets:

    [0.005..0.2 log]             a number, moved in its logarithm
    [4..24 int]                  a whole number
    [65536..2097152 int log]     both
    [SSSL | SSSSL | L]           one of these; numbers and True | False too
    [gpu 4..24 int, cpu 1..6 int]   one range a scale; a scale left out is not searched

Only the last bracket of a comment can be a range, and only if it reads like one (`ranges.reads_like_range`):
shapes as `[B, T]` stay prose. Comment lines without a letter, or that begin with `--` or `==`, are rulers and
headings; they belong to no hyperparameter.
"""

from harness.hyperparameters.constants import Hyperparameter, read
from harness.hyperparameters.contract import check
from harness.hyperparameters.editing import edit, skeleton
from harness.hyperparameters.ranges import Choice, Range, Value, short
from harness.hyperparameters.template import Template
from harness.hyperparameters.text import fingerprint, parse, syntax_tokens

__all__ = [
    "Choice",
    "Hyperparameter",
    "Range",
    "Template",
    "Value",
    "check",
    "edit",
    "fingerprint",
    "parse",
    "read",
    "short",
    "skeleton",
    "syntax_tokens",
]
