"""The user's checkout as the place where a night's commits are kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from harness.errors import GitError
from harness.git.plumbing import Plumbing
from harness.text import one_line, printable, storable

TRAIN, PREPARE = "train.py", "prepare.py"
NOTES = "refs/notes/autoresearch"
MAX_TAG, MAX_TITLE, MAX_HYPOTHESIS = 100, 100, 8000
RESERVED = frozenset({"ledger.db", "ledger.db-wal", "ledger.db-shm", "results.tsv", "report.html", "README.md"})
"""Names in `results/` that no tag can have, as each tag has its folder there."""


class Repository:
    """Commits, refs and notes of all tags. Every error is a GitError."""

    def __init__(self, git: Plumbing, root: Path) -> None:
        self._git = git
        self.root = root
        """Top of the working tree."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Find the checkout that `path` is in. Raises GitError if there is none that can be used."""
        if not path.is_dir():
            raise GitError(f"There is no folder {path}")
        # Where the second question has no answer, that to the first stands in the output already.
        found = Plumbing.at(path).ask("rev-parse", "--is-bare-repository", "--show-toplevel")
        if found.status == 0:
            root = Path(os.fsdecode(found.output.split(b"\n", 1)[1].removesuffix(b"\n")))
            return cls(Plumbing.at(root), root)
        if found.output.startswith(b"true"):
            raise GitError(f"{path} is a bare repository", "Clone it, and work in the clone.")
        if "dubious ownership" in found.error:
            mend = f"If you trust its owner: git config --global --add safe.directory '{path.resolve()}'"
            raise GitError(f"The checkout at {path} belongs to another user", mend)
        if "not a git repository" in found.error:
            raise GitError(f"{path} is no git checkout", "Run `git init` there, or clone the repository.")
        raise Plumbing.refusal("rev-parse", found)

    # Names

    @staticmethod
    def branch_ref(tag: str) -> str:
        return f"refs/heads/autoresearch/{tag}"

    @staticmethod
    def attempt_ref(tag: str, experiment: int, attempt: int = 1) -> str:
        """`refs/autoresearch/TAG/0012` for the first attempt, `.../0012-2` for the second."""
        return f"refs/autoresearch/{tag}/{experiment:04d}" + (f"-{attempt}" if attempt > 1 else "")

    def check_tag(self, tag: str) -> None:
        """Raise GitError if no branch and no folder can have this name."""
        shown = one_line(tag, MAX_TAG)
        mend = "Choose another one with --tag: letters, digits, `-`, `_`, as in nov20."
        fit = tag == storable(tag) and tag[:1] != "-" and len(tag.encode()) <= MAX_TAG and tag not in RESERVED
        if not fit or self._git.ask("check-ref-format", self.branch_ref(tag)).status:
            raise GitError(f"{shown!r} cannot be a tag", mend)
        names = self._git.must("for-each-ref", "--format=%(refname)", "refs/heads/autoresearch", "refs/autoresearch")
        for name in names.text.splitlines():
            other = _tag_of(name)
            if other is None:
                raise GitError(f"{name} stands where our refs must be", "Rename it, if a branch: git branch -m OLD NEW")
            if other.startswith(f"{tag}/") or tag.startswith(f"{other}/"):
                raise GitError(f"Tag {shown} cannot stand beside tag {one_line(other, MAX_TAG)}", mend)

    # Commits

    def baseline(self, tag: str, train: str, prepare: str) -> str:
        """Commit HEAD with these texts of train.py and prepare.py, and start the branch of the tag there.

        Where nothing was committed yet, it becomes a first commit. Branch and ref 0000 are made both or
        neither. Done again before anything else of the tag, as after a crash, it gives the commit that is there.
        """
        self.check_tag(tag)
        branch, first = self.branch_ref(tag), self.attempt_ref(tag, 0)
        folder = first.rpartition("/")[0]
        taken = self._git.must("for-each-ref", "--format=%(refname) %(objectname)", branch, folder).text
        if taken:
            refs = dict(line.split(" ") for line in taken.splitlines())
            there = refs[branch] if refs.keys() == {branch, first} and len({*refs.values()}) == 1 else None
            if there and (self.source(there), self.source(there, PREPARE)) == (train, prepare):
                return there
            mend = f"Choose another name with --tag, or delete these refs: {', '.join(list(refs)[:3])}"
            raise GitError(f"Tag {tag} is taken: git holds work of it", mend)
        head = self._resolve("HEAD")
        if head is None and self._git.ask("rev-parse", "--verify", "--quiet", "HEAD").status == 0:
            raise GitError("HEAD names no commit", "Look at the repository with `git fsck`.")
        commit = self._commit(head, {TRAIN: train, PREPARE: prepare}, message("baseline", "", 0, tag))
        self._create([branch, first], commit)
        return commit

    def commit(self, tag: str, experiment: int, attempt: int, parent: str, source: str, message: str) -> str:
        """Commit the parent with another text of train.py under the attempt's ref; the branch stays.

        Done again, as after a crash, it gives the commit that is there.
        """
        ref = self.attempt_ref(tag, experiment, attempt)
        there = self._resolve(ref)
        if there is None:
            commit = self._commit(parent, {TRAIN: source}, message)
            self._create([ref], commit)
            return commit
        if self._resolve(f"{there}^") == self._resolve(parent) and self.source(there) == source:
            return there
        mend = f"Look at it: git show {there[:12]}. To give it up: git update-ref -d {ref}"
        raise GitError(f"{ref} holds another attempt already", mend)

    def _commit(self, parent: str | None, files: Mapping[str, str], message: str) -> str:
        """Write blobs, tree and commit. No ref names them yet."""
        entries = {}
        if parent:
            listing = self._git.must("ls-tree", "-z", "--full-tree", parent).output
            entries = {line.split(b"\t", 1)[1]: line for line in listing.split(b"\0") if line}
        for name, text in files.items():
            blob = self._git.must("hash-object", "-w", "--stdin", stdin=_encoded(text)).text
            executable = entries.get(name.encode(), b"").startswith(b"100755 ")
            mode = "100755" if executable else "100644"
            entries[name.encode()] = f"{mode} blob {blob}\t{name}".encode()
        # A partial clone need not hold the files beside ours.
        lines = b"".join(line + b"\0" for line in entries.values())
        tree = self._git.must("mktree", "-z", "--missing", stdin=lines).text
        parents = ("-p", parent) if parent else ()
        words = _encoded(storable(message))
        return self._git.must("commit-tree", tree, *parents, "-F", "-", stdin=words).text

    def _create(self, refs: Sequence[str], commit: str) -> None:
        """Make new refs, all or none of them."""
        self._git.must("update-ref", "--stdin", stdin="".join(f"create {ref} {commit}\n" for ref in refs).encode())

    def advance(self, tag: str, commit: str) -> None:
        """Move the tag's branch forward to a descendant. Raises GitError if someone else moved or uses it."""
        ref = self.branch_ref(tag)
        line = self._git.must("for-each-ref", "--format=%(objectname) %(worktreepath)", ref).text
        if not line:
            mend = f"Bring it back: git branch autoresearch/{tag} {commit[:12]}^"
            raise GitError(f"The branch autoresearch/{tag} was deleted", mend)
        old, _, checked_out = line.partition(" ")
        if old == commit:
            return
        if checked_out:
            mend = f"Leave it, and start again: git -C '{checked_out}' switch --detach"
            raise GitError(f"The branch autoresearch/{tag} is checked out in {checked_out}", mend)
        answer = self._git.ask("merge-base", "--is-ancestor", old, commit)
        if answer.status > 1:
            raise Plumbing.refusal("merge-base", answer)
        if answer.status:
            mend = f"Put it back: git branch -f autoresearch/{tag} {commit[:12]}^"
            raise GitError(f"The branch autoresearch/{tag} was moved by hand to {old[:12]}", mend)
        self._git.must("update-ref", "-m", "autoresearch: keep", ref, commit, old)

    def branch(self, tag: str) -> str | None:
        """Commit that the tag's branch is at."""
        return self._resolve(self.branch_ref(tag))

    # Texts

    def source(self, commit: str, path: str = TRAIN) -> str:
        """Exact text of a file in a commit."""
        output = self._git.must("cat-file", "blob", f"{commit}:{path}").output
        try:
            return output.decode("utf-8")
        except UnicodeDecodeError as error:
            raise GitError(f"{path} in {commit[:12]} is no UTF-8 text: {error}") from error

    def diff(self, a: str, b: str, path: str = TRAIN) -> str:
        """Unified diff of a file between two commits; empty where it is the same."""
        options = ("-p", "--text", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index")
        return self._git.must("diff-tree", *options, a, b, "--", path).output.decode("utf-8", "replace")

    def merge(self, base: str, ours: str, theirs: str) -> str | None:
        """Merge two texts that come from a third; None where they conflict."""
        with tempfile.TemporaryDirectory(prefix="autoresearch-merge-") as folder:
            names = "ours", "base", "theirs"
            for name, text in zip(names, (ours, base, theirs), strict=True):
                Path(folder, name).write_bytes(_encoded(text))
            paths = [os.path.join(folder, name) for name in names]
            answer = self._git.ask("merge-file", "-p", "-q", *paths)
        # Status is the number of conflicts; 255 says that a text is no text.
        return None if answer.status else answer.output.decode("utf-8")

    # Notes

    def note(self, commit: str, text: str) -> None:
        """Write the note of a commit, over an earlier one; `git log --notes=autoresearch` shows it."""
        self._git.must("notes", f"--ref={NOTES}", "add", "-f", "-F", "-", commit, stdin=_encoded(storable(text)))

    def noted(self) -> set[str]:
        """Commits that have a note of ours."""
        listed = self._git.must("notes", f"--ref={NOTES}", "list").text
        return {line.split()[1] for line in listed.splitlines()}

    # Plumbing

    def _resolve(self, name: str) -> str | None:
        answer = self._git.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return answer.text if answer.status == 0 else None


def message(title: str, hypothesis: str, experiment: int, tag: str, researcher: str = "") -> str:
    """A commit's message: title, hypothesis, trailers. Title and hypothesis may come from a model."""
    body = printable(hypothesis, MAX_HYPOTHESIS).strip()
    trailers = {"Experiment": str(experiment), "Tag": tag, "Researcher": one_line(researcher, MAX_TITLE)}
    last = "\n".join(f"{name}: {value}" for name, value in trailers.items() if value)
    return "\n\n".join(part for part in (one_line(title, MAX_TITLE) or "untitled", body, last) if part) + "\n"


def _tag_of(ref: str) -> str | None:
    """The tag that a ref belongs to; None for a ref that stands in the place of our folders."""
    if ref.startswith("refs/heads/"):
        return ref.removeprefix("refs/heads/autoresearch").lstrip("/") or None
    return ref.removeprefix("refs/autoresearch").lstrip("/").rpartition("/")[0] or None


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise GitError(f"A text cannot be committed: {error}", "It must be Unicode without lone surrogates.") from error
