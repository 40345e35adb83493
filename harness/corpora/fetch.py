"""Fetches files over HTTP: side by side, resumed after a cut, checked, and put in place whole or not at all.

What has arrived of NAME lies in `NAME.part`; `NAME.part.json` says of which version of the file it is. A
later connection, or a later process, goes on from there, but only if the server still has that version.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from harness.corpora.alone import alone
from harness.corpora.arriving import Board, Part, Version, open_board
from harness.corpora.source import Say
from harness.errors import CorpusError

if TYPE_CHECKING:
    import httpx

BUSY = frozenset({408, 425, 429})
"""Client errors that pass by waiting; so do all of 500 and above."""

REDIRECTS = 8
"""In a row, after which a server is sending us in circles."""

MEND = "Open the address in a browser; if it moved, or is shut to this machine, name a mirror of it."


@dataclass(frozen=True, slots=True)
class Download:
    """One file to have."""

    url: str
    name: str
    """In the folder. No path."""
    check: Callable[[Path], None]
    """Raises CorpusError if the file is not what it must be. Called in a thread, once it is complete."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How long a server is borne with. All times in seconds."""

    failures: int = 6
    """In a row, without `gain` between them, that are borne; one more ends the fetching."""
    gain: int = 1 << 20
    """New bytes that make up for the failures so far: a poor line that gets on is not given up."""
    first: float = 1.0
    """Greatest wait after the first failure; doubles with each. A wait is a random half to whole of it."""
    longest: float = 60.0
    """Greatest wait, also where the server asks for more (Retry-After)."""
    stall: float = 30.0
    """Without a byte, or an answer, after which a connection counts as cut."""
    refetches: int = 1
    """How often a file that fails its check is fetched anew."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def wait(self, failure: int, asked: float | None) -> float:
        """Before the next try, after so many failures in a row; `asked` by the server, if it did."""
        if asked is not None:
            return min(asked, self.longest)
        return min(self.first * 2.0 ** (failure - 1), self.longest) * random.uniform(0.5, 1.0)


def fetch(
    files: Sequence[Download],
    folder: Path,
    *,
    parallel: int = 4,
    say: Say = print,
    retries: Retries | None = None,
    mend: str = MEND,
) -> None:
    """Have all `files` in `folder`, complete and checked; those that are there and pass are left as they are.

    Runs an event loop of its own: call it where none runs. Ended at any moment, by Ctrl-C or the power, it
    goes on from the bytes on the disk when it is called again. A second process waits for the first.

    Raises CorpusError if a file cannot be had (`mend` says what to do then), or the disk is full.
    """
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not _missing(files, folder, say):
            return  # also where nothing can be written
        # Two processes that write one part would spoil it.
        with alone(folder / ".lock", say, f"another process fetches into {folder}; waiting for it"):
            if not (missing := _missing(files, folder, say)):
                return  # the other process had them all
            say(f"fetching {len(missing)} of {len(files)} files into {folder}")
            asyncio.run(_fetch_all(missing, folder, parallel, say, retries or Retries(), mend))


def _missing(files: Sequence[Download], folder: Path, say: Say) -> list[Download]:
    """Those that are not there, or were there and failed their check; the latter are deleted."""
    missing = []
    for file in files:
        target = folder / file.name
        try:
            if target.exists():
                file.check(target)
                continue
        except CorpusError as error:
            say(f"{target} is spoilt and is fetched anew: {error.problem}")
            target.unlink()
        missing.append(file)
    return missing


async def _fetch_all(
    files: Sequence[Download], folder: Path, parallel: int, say: Say, retries: Retries, mend: str
) -> None:
    import httpx

    client = httpx.AsyncClient(
        follow_redirects=True,
        max_redirects=REDIRECTS,
        timeout=httpx.Timeout(retries.stall, pool=None),
        # A connection is used once: what a server sends past the length it named is not the next answer.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        headers={"Accept-Encoding": "identity", "User-Agent": "autoresearch-harness"},
    )
    places = asyncio.Semaphore(parallel)

    async def one(file: Download, board: Board) -> None:
        async with places:
            await _Transfer(file, folder, client, retries, board, say, mend).run()

    with open_board(say, len(files)) as board:
        try:
            async with client, asyncio.TaskGroup() as group:
                for file in files:
                    group.create_task(one(file, board))
        except ExceptionGroup as errors:  # the first to fail has ended the others
            first = errors.exceptions[0]
            raise first from first.__cause__


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """httpx turns the network's errors into its own, so an OSError is one of the disk."""
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"cannot write to {folder}: {error.strerror or error}",
            "Make room there, or move the cache (AUTORESEARCH_CACHE); what has arrived is kept for then.",
        ) from error


class _Failed(Exception):
    """A connection came to nothing; the next may do better."""

    def __init__(self, problem: str, asked: float | None = None) -> None:
        super().__init__(problem)
        self.asked = asked


@dataclass(frozen=True)
class _Transfer:
    """The way of one file from its address into the folder."""

    file: Download
    folder: Path
    client: httpx.AsyncClient
    retries: Retries
    board: Board
    say: Say
    mend: str

    @property
    def target(self) -> Path:
        return self.folder / self.file.name

    @property
    def part(self) -> Part:
        return Part(self.target)

    async def run(self) -> None:
        """To the end, whatever it takes."""
        for left in reversed(range(self.retries.refetches + 1)):
            await self._receive()
            try:
                await asyncio.to_thread(self._settle)
                return self.board.done(self.file.name, self.target.stat().st_size)
            except CorpusError as error:
                self.part.drop()
                if not left:
                    self._give_up(f"what comes from it is not what it must be: {error.problem}")
                self.say(f"{self.file.name} is fetched anew: {error.problem}")

    def _settle(self) -> None:
        self.file.check(self.part.path)
        self.part.become(self.target)

    async def _receive(self) -> None:
        """One connection after another, until the part is complete."""
        failures, best = 0, self.part.size
        while True:
            try:
                return await self._connect()
            except _Failed as failed:
                size = self.part.size
                failures = 1 if size >= best + self.retries.gain else failures + 1
                best = max(best, size)
                if failures > self.retries.failures:
                    self._give_up(f"{failures} failures in a row, at last: {failed}")
                wait = self.retries.wait(failures, failed.asked)
                self.say(f"{self.file.name}: {failed}; trying again in {wait:.1f} s")
            await self.retries.sleep(wait)

    async def _connect(self) -> None:
        import httpx

        held = self.part.version()
        if held and held.total == self.part.size:
            return  # ended between the last byte and the check
        headers = {"Range": f"bytes={self.part.size}-", "If-Range": held.tag} if held else {}
        try:
            async with self.client.stream("GET", self.file.url, headers=headers) as response:
                self._refuse(response)
                await self._write(response, self._place(response, held))
        except httpx.TimeoutException:
            raise _Failed(f"nothing came for {self.retries.stall:g} s") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
            self._give_up(f"{error}")
        except httpx.TransportError as error:
            raise _Failed(f"the connection failed: {error or type(error).__name__}") from None

    def _refuse(self, response: httpx.Response) -> None:
        """Leave here unless the answer brings bytes of the file."""
        status = response.status_code
        if status == 416:
            self.part.drop()
            raise _Failed("the server has fewer bytes of it than are here; beginning anew")
        if status in BUSY or status >= 500:
            raise _Failed(_answer(response), _retry_after(response))
        if status not in (200, 206):
            self._give_up(_answer(response))
        if (coding := response.headers.get("content-encoding", "identity")) != "identity":
            self._give_up(f"the server sends it as {coding}, though that was not asked for")

    def _place(self, response: httpx.Response, held: Version | None) -> int | None:
        """Make the part ready for the body; returns the size that the file will have, if that is known."""
        if response.status_code == 206:
            return self._join(response, held)
        length = response.headers.get("content-length")
        version = Version.of(response, int(length) if length else None)
        self.part.begin(version)
        return version.total

    def _join(self, response: httpx.Response, held: Version | None) -> int | None:
        """As `_place`, for an answer that goes on from the bytes here, if it truly does."""
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
        start, total = map(int, match.groups()) if match else (-1, -1)
        if held is None or start != self.part.size or not held.same(Version.of(response, total)):
            self.part.drop()
            raise _Failed("the file has changed since its first bytes came; beginning anew")
        return total

    async def _write(self, response: httpx.Response, total: int | None) -> None:
        size = self.part.size
        self._need_room((total or 0) - size)
        with self.part.path.open("ab") as file:
            async for chunk in response.aiter_raw():
                file.write(chunk)
                file.flush()
                size += len(chunk)
                self.board.moved(self.file.name, size, total)
                if total is not None and size > total:
                    break
        if total is not None and size > total:
            self.part.drop()
            raise _Failed(f"more than its {total} bytes came; beginning anew")
        if total is not None and size < total:
            raise _Failed(f"the answer ended {total - size} bytes too soon")

    def _need_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(f"{self.file.name} needs {needed / 1e6:,.0f} MB more, {free / 1e6:,.0f} MB are free")

    def _give_up(self, problem: str) -> NoReturn:
        address = re.sub(r"//[^/]*@", "//", self.file.url)  # a password in it is nobody's business
        raise CorpusError(f"cannot fetch {address}: {problem}", self.mend)


def _answer(response: httpx.Response) -> str:
    return f"the server answers {response.status_code} {response.reason_phrase}".rstrip()


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, from either form of the header; None if there is none that can be read."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
