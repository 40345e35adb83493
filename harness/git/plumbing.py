"""One git command at a time, deaf to what the user or the caller's environment may have configured."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from harness.errors import GitError
from harness.text import one_line

if TYPE_CHECKING:
    from git.cmd import Git

NAME, EMAIL = "autoresearch", "autoresearch@localhost"

# Variables that would send git to another repository, index or object store than that of the folder, or make
# it write more than was asked for. Those that bring configuration stay: `safe.directory` may come that way.
UNSET = """
    GIT_DIR GIT_WORK_TREE GIT_IMPLICIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_OBJECT_DIRECTORY GIT_CONFIG
    GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_GRAFT_FILE GIT_REPLACE_REF_BASE GIT_SHALLOW_FILE GIT_NAMESPACE
    GIT_INTERNAL_SUPER_PREFIX GIT_PREFIX GIT_QUARANTINE_PATH GIT_EXTERNAL_DIFF GIT_DIFF_OPTS GIT_NOTES_REF
    GIT_AUTHOR_DATE GIT_COMMITTER_DATE GIT_GLOB_PATHSPECS GIT_NOGLOB_PATHSPECS GIT_ICASE_PATHSPECS GIT_TRACE
    GIT_TRACE2 GIT_TRACE2_EVENT GIT_TRACE2_PERF GIT_TRACE_SETUP GIT_TRACE_PERFORMANCE GIT_TRACE_PACKET
"""

ENVIRONMENT = {
    "GIT_AUTHOR_NAME": NAME,
    "GIT_AUTHOR_EMAIL": EMAIL,
    "GIT_COMMITTER_NAME": NAME,
    "GIT_COMMITTER_EMAIL": EMAIL,
    "GIT_EDITOR": ":",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",  # what is read is what was written
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}

OPTIONS = {
    "commit.gpgSign": "false",
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    # Objects and refs are on disk before the ledger names them (git 2.36 and newer).
    "core.fsync": "committed,reference",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    # In milliseconds: the user may commit, or gather refs, while we do.
    "core.filesRefLockTimeout": "5000",
    "core.packedRefsTimeout": "5000",
    "core.quotePath": "false",
    "gc.auto": "0",
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
    "maintenance.auto": "false",
}

COMMAND = [
    "env",
    *(part for name in UNSET.split() for part in ("-u", name)),
    "git",
    *(part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")),
]
"""GitPython can add variables to the environment but take none away; `env` can."""

MENDS = {
    "dubious ownership": "If you trust its owner, run the `git config` line above.",
    ".lock': File exists": "If no other git is running there, remove the file that is named above.",
    "No space left": "Make room on the disk and start again.",
    "Disk quota": "Make room in your quota and start again.",
    "ermission denied": "Give yourself write permission on the .git folder.",
    "insufficient permission": "Give yourself write permission on the .git folder.",
    "Read-only file system": "Work in a checkout on a disk that can be written to.",
    "is empty": "Look at the repository with `git fsck`.",
    "corrupt": "Look at the repository with `git fsck`.",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one git command said."""

    status: int
    output: bytes
    error: str

    @property
    def text(self) -> str:
        """Output as UTF-8, without the last line end."""
        return self.output.decode("utf-8", "replace").rstrip("\n")


class Plumbing:
    """git in one folder. Each call is a process of some 3 ms, out of reach of the terminal's Ctrl-C."""

    def __init__(self, git: Git) -> None:
        self._git = git

    @classmethod
    def at(cls, folder: Path) -> Plumbing:
        try:
            from git.cmd import Git
        except ImportError as error:  # GitPython looks for git when it is imported
            raise GitError("git was not found", "Install git, and look whether it is on PATH.") from error
        return cls(Git(folder))

    def ask(self, *arguments: str, stdin: bytes | None = None) -> Answer:
        """Run one command; any status is an answer."""
        from git.exc import GitCommandNotFound

        try:
            if stdin is None:
                return self._run(arguments, None)
            with tempfile.TemporaryFile() as file:
                file.write(stdin)
                file.seek(0)
                return self._run(arguments, file)
        except (GitCommandNotFound, OSError) as error:
            raise GitError(f"git {arguments[0]} cannot be run: {error}", "Are git and env on PATH?") from error

    def must(self, *arguments: str, stdin: bytes | None = None) -> Answer:
        """Run one command that has to succeed. Raises GitError with what git said."""
        answer = self.ask(*arguments, stdin=stdin)
        if answer.status:
            raise self.refusal(arguments[0], answer)
        return answer

    @staticmethod
    def refusal(command: str, answer: Answer) -> GitError:
        """The error for an answer that is none."""
        said = one_line(answer.error or answer.text, 1000) or f"status {answer.status}"
        mend = next((text for words, text in MENDS.items() if words in answer.error), "")
        return GitError(f"git {command} failed: {said}", mend)

    def _run(self, arguments: tuple[str, ...], stdin: IO[bytes] | None) -> Answer:
        said = self._git.execute(
            [*COMMAND, *arguments],
            istream=stdin,  # type: ignore[arg-type]
            env=ENVIRONMENT,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            # Ctrl-C is for the harness; a git that dies of it would leave lock files behind.
            start_new_session=True,
        )
        return Answer(*cast("tuple[int, bytes, str]", said))
