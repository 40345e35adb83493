"""Commits beside the user's work: real git, and checkouts of every odd kind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import GitError
from harness.git import Repository, message

TRAIN = "WIDTH = 64\nDEPTH = 2\n"
PREPARE = "VOCAB = 2048\n"


def git(folder: Path, *arguments: str) -> str:
    """What a person would see: plain git, as a user with a name."""
    command = ["git", "-c", "user.name=Zoë", "-c", "user.email=zoe@example.org", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\n")


def state(folder: Path) -> dict[str, object]:
    """All of the user's that must not change: HEAD, index, configuration and files."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    inside = Path(git(folder, "rev-parse", "--absolute-git-dir"))
    kept = {name: (inside / name).read_bytes() for name in ("HEAD", "index") if (inside / name).exists()}
    return {"files": files, "kept": kept, "status": git(folder, "status", "--porcelain")}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one commit, in a folder with a space and accents, of a user without configuration."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    folder = tmp_path / "été à Zürich"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    for name, text in {"train.py": "old\n", "prepare.py": "old\n", "notes.txt": "mine\n"}.items():
        (folder / name).write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=mine")
    return folder


@pytest.fixture
def repository(checkout: Path) -> Repository:
    return Repository.open(checkout)


def test_the_baseline_is_head_with_the_two_given_texts(checkout: Path, repository: Repository) -> None:
    commit = repository.baseline("nov20", TRAIN, PREPARE)
    assert git(checkout, "show", f"{commit}:train.py") + "\n" == TRAIN
    assert git(checkout, "show", f"{commit}:prepare.py") + "\n" == PREPARE
    assert git(checkout, "show", f"{commit}:notes.txt") == "mine"
    assert git(checkout, "rev-parse", f"{commit}^") == git(checkout, "rev-parse", "main")
    assert repository.branch("nov20") == commit
    assert git(checkout, "rev-parse", "refs/autoresearch/nov20/0000") == commit


def test_nothing_of_the_user_changes_in_a_whole_night(checkout: Path, repository: Repository) -> None:
    (checkout / "train.py").write_text("dirty\n")
    (checkout / "staged.py").write_text("staged\n")
    git(checkout, "add", "staged.py")
    before = state(checkout)
    base = repository.baseline("nov20", TRAIN, PREPARE)
    kept = repository.commit("nov20", 1, 1, base, "WIDTH = 96\n", "wider")
    repository.advance("nov20", kept)
    repository.note(kept, "keep")
    repository.merge("a\n", "b\n", "a\n")
    assert state(checkout) == before


def test_an_attempt_is_reachable_and_moves_no_branch(checkout: Path, repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    first = repository.commit("nov20", 7, 1, base, "A = 1\n", "one")
    second = repository.commit("nov20", 7, 2, base, "A = 2\n", "two")
    assert git(checkout, "rev-parse", "refs/autoresearch/nov20/0007") == first
    assert git(checkout, "rev-parse", "refs/autoresearch/nov20/0007-2") == second
    assert repository.branch("nov20") == base
    assert git(checkout, "fsck", "--strict") == ""


def test_a_commit_that_was_made_before_a_crash_is_found_again(repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    first = repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    assert repository.commit("nov20", 1, 1, base, "A = 1\n", "one, again") == first
    with pytest.raises(GitError, match="another attempt"):
        repository.commit("nov20", 1, 1, base, "A = 2\n", "one")


def test_a_baseline_that_was_made_before_a_crash_is_found_again(repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    assert repository.baseline("nov20", TRAIN, PREPARE) == base


def test_a_tag_with_work_in_it_starts_no_second_time(repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    with pytest.raises(GitError, match="taken"):
        repository.baseline("nov20", TRAIN, PREPARE)


@pytest.mark.parametrize(
    "text", ["a\r\nb\r\n", "no end", "", "\ufeffmark\n", "$Id$ é 木 🎈\n", "a\rb\n", "tab\t\n\n\n"]
)
def test_a_text_comes_back_byte_for_byte(checkout: Path, text: str) -> None:
    git(checkout, "config", "core.autocrlf", "true")
    (checkout / ".gitattributes").write_text("*.py text eol=crlf ident working-tree-encoding=UTF-16\n")
    repository = Repository.open(checkout)
    base = repository.baseline("nov20", text, PREPARE)
    assert repository.source(base) == text
    assert repository.source(base, "prepare.py") == PREPARE


def test_hooks_signing_filters_and_fsmonitor_of_the_user_do_not_run(checkout: Path) -> None:
    trace = checkout.parent / "ran"
    script = checkout.parent / "spy"
    script.write_text(f"#!/bin/sh\ntouch '{trace}'\nexit 1\n")
    script.chmod(0o755)
    hooks = checkout.parent / "hooks"
    hooks.mkdir()
    names = "reference-transaction", "pre-commit", "commit-msg", "post-commit", "prepare-commit-msg", "post-rewrite"
    for name in names:
        (hooks / name).symlink_to(script)
    (checkout / ".gitattributes").write_text("*.py filter=spy diff=spy merge=spy\n")
    settings = {
        "core.hooksPath": str(hooks),
        "core.fsmonitor": str(script),
        "core.editor": str(script),
        "commit.gpgSign": "true",
        "gpg.program": str(script),
        "filter.spy.clean": str(script),
        "filter.spy.required": "true",
        "diff.external": str(script),
        "diff.spy.textconv": str(script),
        "merge.spy.driver": str(script),
    }
    for name, value in settings.items():
        git(checkout, "config", name, value)
    repository = Repository.open(checkout)
    base = repository.baseline("nov20", TRAIN, PREPARE)
    kept = repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    repository.advance("nov20", kept)
    repository.note(kept, "keep")
    assert repository.diff(base, kept)
    assert not trace.exists()


def test_variables_of_the_caller_lead_to_no_other_repository(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    git(tmp_path, "init", "--quiet", str(other))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / "objects"))
    monkeypatch.setenv("GIT_NAMESPACE", "other")
    repository = Repository.open(checkout)
    base = repository.baseline("nov20", TRAIN, PREPARE)
    assert repository.root == checkout
    assert (checkout / ".git/refs/heads/autoresearch/nov20").read_text().strip() == base


def test_commits_are_by_the_harness_and_not_by_the_user(checkout: Path, repository: Repository) -> None:
    git(checkout, "config", "user.name", "Zoë")
    base = repository.baseline("nov20", TRAIN, PREPARE)
    who = "autoresearch <autoresearch@localhost>"
    assert git(checkout, "log", "-1", "--format=%an <%ae>%n%cn <%ce>", base) == f"{who}\n{who}"


def test_where_nothing_was_committed_the_baseline_is_a_first_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    repository = Repository.open(tmp_path)
    base = repository.baseline("nov20", TRAIN, PREPARE)
    assert git(tmp_path, "rev-list", "--count", base) == "1"
    assert git(tmp_path, "ls-tree", "--name-only", base) == "prepare.py\ntrain.py"
    assert git(tmp_path, "symbolic-ref", "HEAD") == "refs/heads/main"


def detached(checkout: Path, tmp_path: Path) -> Path:
    git(checkout, "switch", "--quiet", "--detach")
    return checkout


def linked(checkout: Path, tmp_path: Path) -> Path:
    git(checkout, "worktree", "add", "--quiet", "-b", "look", str(tmp_path / "linked œuvre"))
    return tmp_path / "linked œuvre"


def shallow(checkout: Path, tmp_path: Path) -> Path:
    git(checkout, "commit", "--quiet", "--allow-empty", "--message=second")
    git(tmp_path, "clone", "--quiet", "--depth=1", checkout.as_uri(), "shallow")
    return tmp_path / "shallow"


def sha256(checkout: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "sha256"
    made = subprocess.run(["git", "init", "--quiet", "--object-format=sha256", folder], capture_output=True)
    if made.returncode:
        pytest.skip("this git knows SHA-1 alone")
    return folder


def packed(checkout: Path, tmp_path: Path) -> Path:
    git(checkout, "gc", "--quiet")
    return checkout


@pytest.mark.parametrize("kind", [detached, linked, shallow, sha256, packed])
def test_a_night_works_in_a_checkout_that_is(
    kind: Callable[[Path, Path], Path], checkout: Path, tmp_path: Path
) -> None:
    folder = kind(checkout, tmp_path)
    repository = Repository.open(folder)
    before = state(folder)
    base = repository.baseline("nov20", TRAIN, PREPARE)
    kept = repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    repository.note(kept, "keep")
    repository.advance("nov20", kept)
    assert git(folder, "rev-parse", "autoresearch/nov20") == kept
    assert repository.source(kept) == "A = 1\n"
    assert state(folder) == before


def test_it_is_found_from_a_subfolder(checkout: Path) -> None:
    (checkout / "sub" / "sub").mkdir(parents=True)
    assert Repository.open(checkout / "sub" / "sub").root == checkout


def test_a_folder_that_is_no_checkout_is_an_error_with_a_mend(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="git init"):
        Repository.open(tmp_path)


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="no folder"):
        Repository.open(tmp_path / "missing")


def test_a_bare_repository_is_an_error_with_a_mend(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    with pytest.raises(GitError, match="Clone it"):
        Repository.open(tmp_path / "bare.git")


def test_a_checkout_of_another_user_is_an_error_with_a_mend(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(GitError, match=r"safe\.directory"):
        Repository.open(checkout)


def test_without_git_the_error_says_so(checkout: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    with pytest.raises(GitError, match="PATH"):
        repository.branch("nov20")


@pytest.mark.parametrize(
    "tag",
    [
        *("", "a b", "a..b", "-x", ".hidden", "a/", "/a", "a//b", "x.lock", "a~1", "a^", "a:b", "a?", "a*", "a[b"),
        *(
            "a\\b",
            "@{",
            "a\nb",
            "a\x1b[31m",
            "\ud800",
            "x" * 101,
            "ledger.db",
            "results.tsv",
            "a/.b",
            "../up",
            "a/../b",
        ),
    ],
)
def test_a_name_that_no_branch_can_have_is_refused(repository: Repository, tag: str) -> None:
    with pytest.raises(GitError, match="--tag") as caught:
        repository.check_tag(tag)
    assert str(caught.value).encode()
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("tag", ["nov20", "a/b", "été", "x-1_2.3", "0001", "HEAD"])
def test_a_name_that_a_branch_can_have_is_taken(repository: Repository, tag: str) -> None:
    repository.check_tag(tag)
    assert repository.baseline(tag, TRAIN, PREPARE) == repository.branch(tag)


def test_no_tag_stands_inside_another(repository: Repository) -> None:
    repository.baseline("a/b", TRAIN, PREPARE)
    for tag in ("a", "a/b/c"):
        with pytest.raises(GitError, match="beside"):
            repository.check_tag(tag)
    repository.check_tag("a/c")


def test_a_branch_in_the_place_of_our_folder_is_an_error_with_a_mend(checkout: Path, repository: Repository) -> None:
    git(checkout, "branch", "autoresearch")
    with pytest.raises(GitError, match="git branch -m"):
        repository.check_tag("nov20")


def test_the_branch_only_goes_forward(repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    one = repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    beside = repository.commit("nov20", 2, 1, base, "A = 2\n", "two")
    repository.advance("nov20", one)
    repository.advance("nov20", one)
    with pytest.raises(GitError, match="moved by hand"):
        repository.advance("nov20", beside)
    assert repository.branch("nov20") == one


def test_a_branch_that_was_moved_by_hand_is_not_overwritten(checkout: Path, repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    one = repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    git(checkout, "branch", "--force", "autoresearch/nov20", "main")
    theirs = git(checkout, "commit-tree", "main^{tree}", "-p", base, "-m", "by hand")
    git(checkout, "branch", "--force", "autoresearch/nov20", theirs)
    with pytest.raises(GitError, match="moved by hand"):
        repository.advance("nov20", one)
    assert repository.branch("nov20") == theirs


def test_a_branch_that_was_deleted_is_an_error_whose_mend_works(checkout: Path, repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    one = repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    git(checkout, "branch", "-D", "autoresearch/nov20")
    with pytest.raises(GitError, match="deleted") as caught:
        repository.advance("nov20", one)
    git(checkout, *caught.value.mend.partition("git ")[2].split())
    repository.advance("nov20", one)
    assert repository.branch("nov20") == one


def test_a_branch_that_is_checked_out_anywhere_is_not_moved(checkout: Path, tmp_path: Path) -> None:
    repository = Repository.open(checkout)
    base = repository.baseline("nov20", TRAIN, PREPARE)
    one = repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    git(checkout, "worktree", "add", "--quiet", str(tmp_path / "look"), "autoresearch/nov20")
    with pytest.raises(GitError, match="checked out") as caught:
        repository.advance("nov20", one)
    assert str(tmp_path / "look") in caught.value.mend
    git(tmp_path / "look", "switch", "--quiet", "--detach")
    repository.advance("nov20", one)
    assert repository.branch("nov20") == one


def test_a_ref_that_another_git_holds_is_an_error_with_a_mend(checkout: Path, repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    (checkout / ".git/refs/autoresearch/nov20/0001.lock").touch()
    with pytest.raises(GitError, match="remove the file"):
        repository.commit("nov20", 1, 1, base, "A = 1\n", "one")


def test_the_mode_of_the_users_train_py_stays(checkout: Path) -> None:
    (checkout / "train.py").chmod(0o755)
    git(checkout, "commit", "--quiet", "--all", "--message=executable")
    repository = Repository.open(checkout)
    base = repository.baseline("nov20", TRAIN, PREPARE)
    one = repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    assert git(checkout, "ls-tree", one, "train.py").startswith("100755 ")
    assert git(checkout, "ls-tree", one, "prepare.py").startswith("100644 ")


def test_a_link_in_the_place_of_train_py_becomes_a_file(checkout: Path) -> None:
    (checkout / "train.py").unlink()
    (checkout / "train.py").symlink_to("notes.txt")
    git(checkout, "commit", "--quiet", "--all", "--message=link")
    repository = Repository.open(checkout)
    base = repository.baseline("nov20", TRAIN, PREPARE)
    assert git(checkout, "ls-tree", base, "train.py").startswith("100644 ")
    assert repository.source(base) == TRAIN


def test_replaced_objects_do_not_change_what_is_read(checkout: Path, repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    other = repository.commit("nov20", 1, 1, base, "A = 1\n", "one")
    git(checkout, "replace", base, other)
    assert repository.source(base) == TRAIN


def test_the_diff_is_plain_whatever_the_user_prefers(checkout: Path, repository: Repository) -> None:
    for name, value in {"color.ui": "always", "diff.noprefix": "true", "diff.mnemonicPrefix": "true"}.items():
        git(checkout, "config", name, value)
    base = repository.baseline("nov20", TRAIN, PREPARE)
    one = repository.commit("nov20", 1, 1, base, TRAIN.replace("64", "96"), "one")
    assert "-WIDTH = 64\n+WIDTH = 96\n DEPTH = 2\n" in repository.diff(base, one)
    assert "\x1b" not in repository.diff(base, one)
    assert repository.diff(base, base) == ""


def test_two_changes_far_apart_merge(repository: Repository) -> None:
    base = "".join(f"line {i}\n" for i in range(9))
    ours, theirs = base.replace("line 0", "ours"), base.replace("line 8", "theirs")
    assert repository.merge(base, ours, theirs) == ours.replace("line 8", "theirs")


@pytest.mark.parametrize(("ours", "theirs"), [("b\n", "c\n"), ("", "c\n"), ("b\0\n", "a\n")])
def test_two_changes_in_one_place_do_not_merge(repository: Repository, ours: str, theirs: str) -> None:
    assert repository.merge("a\n", ours, theirs) is None


def test_a_note_is_written_over_an_earlier_one_and_read_by_git_log(checkout: Path, repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    repository.note(base, "val_bpb: 1.75")
    repository.note(base, "val_bpb: 1.74\nverdict: keep")
    log = git(checkout, "log", "-1", "--notes=autoresearch", "--format=%N", "autoresearch/nov20")
    assert log.strip() == "val_bpb: 1.74\nverdict: keep"


def test_a_message_has_title_hypothesis_and_trailers(checkout: Path, repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    text = message("wider", "More width.\n\nExperiment: 99", 4, "nov20", "search")
    one = repository.commit("nov20", 4, 1, base, "A = 1\n", text)
    assert git(checkout, "log", "-1", "--format=%s", one) == "wider"
    trailers = git(checkout, "log", "-1", "--format=%(trailers:unfold)", one)
    assert trailers.split("\n") == ["Experiment: 4", "Tag: nov20", "Researcher: search"]


def test_a_hostile_title_is_one_line_without_control_characters(checkout: Path, repository: Repository) -> None:
    title = "evil\n\nExperiment: 0\x1b]0;title\x07\u202e\ud800\0" + "x" * 500
    base = repository.baseline("nov20", TRAIN, PREPARE)
    one = repository.commit("nov20", 1, 1, base, "A = 1\n", message(title, "\x1b[2J\0", 1, "nov20", "\nTag: x"))
    subject = git(checkout, "log", "-1", "--format=%s", one)
    assert subject.startswith("evil Experiment: 0\\x1b]0;title\\x07\\u202e\\ud800")
    assert len(subject) <= 100
    assert git(checkout, "log", "-1", "--format=%(trailers:key=Tag,valueonly)", one).strip() == "nov20"


def test_a_text_that_is_no_unicode_is_refused(repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    with pytest.raises(GitError, match="surrogate"):
        repository.commit("nov20", 1, 1, base, "x = '\ud800'\n", "one")


def test_a_source_that_is_missing_is_an_error_that_names_it(repository: Repository) -> None:
    base = repository.baseline("nov20", TRAIN, PREPARE)
    with pytest.raises(GitError, match=r"other\.py"):
        repository.source(base, "other.py")
