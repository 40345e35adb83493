"""A `train.py` as tokens: what counts of its text, comments and layout apart."""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import threading
import tokenize
import warnings
from collections.abc import Iterator

from harness.errors import ContractError

_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_BLOCKS = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
Position = tuple[int, int]
_quiet = threading.Lock()  # warning filters belong to the process, not to a thread


def shown(source: str, line: int) -> str:
    """One line of a text as an error message quotes it, with its number."""
    lines = source.encode("utf-8", "replace").splitlines()
    text = lines[line - 1].decode() if 0 < line <= len(lines) else ""
    return f"\n    {line} | {text.strip()[:160]}"


def parse(source: str) -> ast.Module:
    """The syntax tree of a `train.py`. Raises `ContractError` with the line that does not parse."""
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler thinks of a text under test is not our news
            return ast.parse(source)
    except SyntaxError as error:
        line = error.lineno or 1
        raise ContractError(
            f"train.py, line {line}: {error.msg}{shown(source, line)}", "Mend the syntax of this line."
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ContractError(f"train.py cannot be parsed: {error}", "Write it as plain Python in UTF-8.") from None


def tokens(source: str) -> list[tokenize.TokenInfo]:
    """The tokens of a `train.py`. Raises `ContractError` if it cannot be cut into any."""
    lines = source.replace("\r\n", "\n").replace("\r", "\n")  # as the parser counts lines
    try:
        return list(tokenize.generate_tokens(io.StringIO(lines).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        raise ContractError(f"train.py: {error.args[0]}", "Mend the syntax of the file.") from None


@functools.lru_cache(maxsize=8)  # one text is asked about several times in a row
def fingerprint(source: str) -> str:
    """A hash of the text without comments, docstrings and layout: 16 hexadecimal digits.

    Two texts with the same fingerprint do the same: numbers and strings are hashed by value (`0.040` is
    `0.04`, `65_536` is `65536`). Docstrings go too, since they are comments to the machine. A text that does
    not parse is hashed as it stands.
    """
    try:
        content = "\x00".join(_significant(source))
    except ContractError:
        content = "raw\x00" + source
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def syntax_tokens(source: str) -> int:
    """How many tokens of syntax a text has; comments, docstrings and layout do not count.

    Raises `ContractError` if it does not parse.
    """
    return sum(1 for text in _significant(source) if not text.startswith("block "))


def _significant(source: str) -> Iterator[str]:
    """Tokens that mean something, literals by value; the block structure as `block NUMBER`."""
    ends = _docstrings(source)
    end, bare = (0, 0), False
    for token in tokens(source):
        end = max(end, ends.get(token.start, end))  # a docstring may be several strings in a row
        if token.type in _LAYOUT:
            continue
        if token.end <= end:
            bare = True
        elif token.type in _BLOCKS:
            if not (bare and token.type == tokenize.NEWLINE):  # the line of a docstring alone goes with it
                yield f"block {token.type}"
            bare = bare and token.type != tokenize.NEWLINE
        else:
            bare = False
            yield _by_value(token)


def _by_value(token: tokenize.TokenInfo) -> str:
    if token.type not in (tokenize.NUMBER, tokenize.STRING):
        return token.string
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return repr(ast.literal_eval(token.string))
    except (ValueError, SyntaxError):
        return token.string  # an f-string


def _docstrings(source: str) -> dict[Position, Position]:
    """Start to end of each docstring, in lines and characters."""
    lines = source.encode("utf-8", "replace").splitlines()
    found: dict[Position, Position] = {}
    for node in ast.walk(parse(source)):
        if not isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        text = node.body[0].value if node.body and isinstance(node.body[0], ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            start = _position(lines, text.lineno, text.col_offset)
            found[start] = _position(lines, text.end_lineno or 1, text.end_col_offset or 0)
    return found


def _position(lines: list[bytes], line: int, column: int) -> Position:
    """Columns in characters, as tokenize counts; ast counts bytes."""
    return line, len(lines[line - 1][:column].decode())
