"""What is shown of a run, on a terminal and in a pipe."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.figures import figure
from harness.live import LiveView, open_view
from harness.plain import PlainView
from harness.standings import standings
from harness.told import Heading
from harness.types import Attempt, Experiment, Job, Outcome, Progress, Result, Trial, Verdict

HEADING = Heading("nov20", "search", "8 hours")
HOSTILE = "[red]big[/red] :smile: \x1b]0;owned\x07\x1b[2J\u202eevil\nsecond\rline"
CURSOR_ON, CURSOR_OFF = "\x1b[?25h", "\x1b[?25l"


class Terminal(io.StringIO):
    """A terminal that keeps all that was written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class HungUp(Terminal):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


def screen(output: str) -> list[str]:
    """The lines a terminal shows after `output`, scrollback included; knows what rich's live display writes."""
    lines, row, column = [""], 0, 0
    for code, final, text in re.findall(r"\x1b\[([?\d;]*)([A-Za-z])|([^\x1b])", output):
        if text == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif text == "\r":
            column = 0
        elif text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + 1 :]
            column += 1
        elif final == "A":
            row -= int(code or 1)
        elif final == "K":
            lines[row] = ""
    return [line.rstrip() for line in lines]


def job(experiment: int, index: int = 0, attempt: int = 1) -> Job:
    return Job("nov20", experiment, attempt, index, 1 + index, "", "", Path("trial"))


def experiment(number: int, title: str, verdict: Verdict | None = None, *scores: float, **more: object) -> Experiment:
    trials = [Trial(number, 1, i, 1 + i, 0.0, Result(Outcome.OK, val_bpb=score)) for i, score in enumerate(scores)]
    return Experiment(
        "nov20",
        number,
        "arena",
        0 if number else None,
        title,
        "",
        "",
        "search",
        0.0,
        verdict=verdict,
        attempts=(Attempt(1, "c0ffee", "hash"),),
        trials=tuple(trials),
        **more,  # type: ignore[arg-type]
    )


def night(view: LiveView | PlainView) -> None:
    """A short feed of events: a baseline, a win, a loss, a failure, and two trials that go on."""
    view.experiment_opened(experiment(0, "Baseline"))
    view.trial_started(job(0))
    view.trial_ended(job(0), Result(Outcome.OK, val_bpb=1.7345, total_seconds=36.25))
    view.experiment_judged(experiment(0, "Baseline", Verdict.KEEP, 1.7345, 1.7355))
    view.experiment_opened(experiment(1, "Value embeddings"))
    view.trial_started(job(1))
    view.trial_ended(job(1), Result(Outcome.OK, val_bpb=1.7245, total_seconds=35.0))
    view.experiment_judged(experiment(1, "Value embeddings", Verdict.KEEP, 1.7245, gain=0.0101))
    view.experiment_judged(experiment(2, "Lower rate", Verdict.DISCARD, 1.7411, gain=-0.0166))
    view.experiment_opened(experiment(3, "Twice the depth"))
    view.trial_ended(job(3), Result(Outcome.OOM, "2,130 MB asked for"))
    view.experiment_judged(experiment(3, "Twice the depth", Verdict.FAILED, reason="no trial was ok"))
    view.experiment_opened(experiment(4, "Wider embedding"))
    view.trial_started(job(4))
    view.trial_started(job(4, 1))
    view.trial_progress(job(4), Progress("training", 0.5, 812, 546_000, 10.0, 1.8312))
    view.trial_progress(job(4, 1), Progress("scoring", 1.0, 1624, 1_092_000, 20.0, float("nan")))
    view.say("Nothing is wrong")


@pytest.fixture(autouse=True)
def terminal_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal of all tests, whatever that of the person who runs them."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


class Hands:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Hands:
    return Hands()


def plain(stream: io.StringIO, clock: Callable[[], float]) -> PlainView:
    return PlainView(stream, HEADING, clock=clock, now=lambda: 1_763_678_467.0)


def events(stream: io.StringIO) -> list[str]:
    """Lines without their stamp, whose zone is that of the machine."""
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    return [line[20:] for line in lines]


def test_a_pipe_and_a_dumb_terminal_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_view(io.StringIO(), HEADING), PlainView)
    assert isinstance(open_view(Terminal(), HEADING), LiveView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_view(Terminal(), HEADING), PlainView)


def test_a_pipe_stays_plain_where_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(open_view(io.StringIO(), HEADING), PlainView)


def test_a_terminal_without_line_drawings_gets_plain_lines() -> None:
    stream = Terminal()
    stream.encoding = "latin-1"  # type: ignore[misc]
    assert isinstance(open_view(stream, HEADING), PlainView)


def test_plain_lines_are_the_documented_ones(clock: Hands) -> None:
    stream = io.StringIO()
    with plain(stream, clock) as view:
        night(view)
    assert events(stream) == [
        'run tag=nov20 researcher=search until="8 hours"',
        'opened 0 parent=- researcher=search title="Baseline"',
        'ended 0 attempt=1 seed=1 outcome=ok val_bpb=1.734500 seconds=36.2 reason=""',
        'judged 0 verdict=keep val_bpb=1.735000 gain=- title="Baseline" reason=""',
        'opened 1 parent=0 researcher=search title="Value embeddings"',
        'ended 1 attempt=1 seed=1 outcome=ok val_bpb=1.724500 seconds=35.0 reason=""',
        'judged 1 verdict=keep val_bpb=1.724500 gain=+0.010100 title="Value embeddings" reason=""',
        'judged 2 verdict=discard val_bpb=1.741100 gain=-0.016600 title="Lower rate" reason=""',
        'opened 3 parent=0 researcher=search title="Twice the depth"',
        'ended 3 attempt=1 seed=1 outcome=oom val_bpb=- seconds=0.0 reason="2,130 MB asked for"',
        'judged 3 verdict=failed val_bpb=- gain=- title="Twice the depth" reason="no trial was ok"',
        'opened 4 parent=0 researcher=search title="Wider embedding"',
        'news text="Nothing is wrong"',
    ]


def test_a_trial_has_at_most_one_line_of_progress_in_thirty_seconds(clock: Hands) -> None:
    stream = io.StringIO()
    view = plain(stream, clock)
    view.trial_started(job(4))
    for second in range(91):
        clock.time = float(second)
        view.trial_progress(job(4), Progress("training", second / 300, second, 1000 * second, float(second), 2.5))
    assert events(stream) == [
        "running 4 attempt=1 seed=1 phase=training percent=10 steps=30 tokens_per_second=1000 claimed_loss=2.5000",
        "running 4 attempt=1 seed=1 phase=training percent=20 steps=60 tokens_per_second=1000 claimed_loss=2.5000",
        "running 4 attempt=1 seed=1 phase=training percent=30 steps=90 tokens_per_second=1000 claimed_loss=2.5000",
    ]


def test_trials_side_by_side_have_lines_of_progress_of_their_own(clock: Hands) -> None:
    stream = io.StringIO()
    view = plain(stream, clock)
    for index in (0, 1):
        view.trial_started(job(4, index))
    clock.time = 31.0
    for index in (0, 1):
        view.trial_progress(job(4, index), Progress("training"))
    assert [line.split(" phase")[0] for line in events(stream)] == [
        "running 4 attempt=1 seed=1",
        "running 4 attempt=1 seed=2",
    ]


def test_a_title_can_neither_add_a_line_nor_a_key(clock: Hands) -> None:
    stream = io.StringIO()
    title = 'x" gain=+9\n2026-01-01 00:00:00 judged 5 verdict=keep \x1b[2J'
    plain(stream, clock).experiment_judged(experiment(5, title, Verdict.DISCARD, 1.8))
    (line,) = events(stream)
    text, end = json.JSONDecoder().raw_decode(line.split("title=", 1)[1])
    assert text.startswith('x" gain=+9 2026-01-01')
    assert line.split("title=", 1)[1][end:] == ' reason=""'
    assert "\x1b" not in line


def test_a_stream_of_another_encoding_gets_escapes(clock: Hands) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    PlainView(stream, HEADING, clock=clock).say("große 日本語")
    assert b'text="gro\\xdfe \\u65e5' in raw.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140, 200])
def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    with LiveView(stream, HEADING) as view:
        night(view)
        view.experiment_opened(experiment(5, "A title of many words " * 20))
        view.trial_started(job(5))
        view.trial_progress(job(5), Progress("training", 2.0, 10**9, 10**15, 1.0, 1e300))
    assert max(map(len, screen(stream.getvalue()))) <= width


def test_finished_experiments_stay_above_the_live_part(monkeypatch: pytest.MonkeyPatch, clock: Hands) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with LiveView(stream, HEADING, clock=clock) as view:
        night(view)
        clock.time = 3600 + 12 * 60
    lines = screen(stream.getvalue())
    rule = next(i for i, line in enumerate(lines) if line.startswith("── nov20 · search · until 8 hours ─"))
    assert [" ".join(line.split()[1:]) for line in lines[:rule]] == [
        "0 first seed 1.7345 Baseline",
        "0 baseline 1.7350 Baseline",
        "1 ✓ keep 1.7245 +0.0101 Value embeddings",
        "2 discard 1.7411 -0.0166 Lower rate",
        "3 oom Twice the depth 2,130 MB asked for",
        "3 ✗ failed Twice the depth no trial was ok",
        "Nothing is wrong",
    ]
    assert lines[rule].endswith(" 2 an hour · 1 h 12 min ──")
    assert [" ".join(line.split()) for line in lines[rule + 1 : rule + 5]] == [
        "best 1.7245 #1 +0.0100 over the baseline's 1.7350",
        "made 3 experiments: 1 kept, 1 discarded, 1 failed",
        "kept 1.7245 #1 +0.0101 Value embeddings",
        "",
    ]


def test_running_trials_are_shown_with_all_that_is_known_of_them() -> None:
    stream = Terminal()
    with LiveView(stream, HEADING) as view:
        night(view)
        shown = screen(stream.getvalue())
    rows = [line.split() for line in shown if line.lstrip().startswith("#4")]
    assert rows == [
        ["#4", "Wider", "embedding", "1", "━━━━━─────", "50", "%", "1.8312", "54.6k", "812"],
        ["#4", "Wider", "embedding", "2", "scoring", "nan", "54.6k", "1,624"],
    ]


def test_more_trials_than_fit_leave_the_picture_on_the_screen() -> None:
    stream = Terminal()
    with LiveView(stream, HEADING) as view:
        night(view)
        for number in range(10, 50):
            view.trial_started(job(number))
        view.say("Now")
        shown = screen(stream.getvalue())
    picture = shown[next(i for i, line in enumerate(shown) if line.startswith("──")) :]
    assert len(picture) < 24
    assert picture[-1].strip() == "and 30 more"


def test_a_new_frame_replaces_the_last_one() -> None:
    stream = Terminal()
    with LiveView(stream, HEADING) as view:
        for number in range(20):
            view.say(f"News {number}")
    assert sum(line.startswith("──") for line in screen(stream.getvalue())) == 1


def test_experiments_of_the_past_count_without_being_announced(clock: Hands) -> None:
    past = (
        experiment(0, "Baseline", None, 1.75),
        experiment(1, "An old win", Verdict.KEEP, 1.74, gain=0.01),
        experiment(2, "An old loss", Verdict.DISCARD, 1.76, gain=-0.01),
    )
    stream = Terminal()
    with LiveView(stream, Heading("nov20", "search", "8 hours", past), clock=clock):
        clock.time = 60.0
    lines = screen(stream.getvalue())
    assert "best  1.7400  #1     +0.0100 over the baseline's 1.7500" in lines[1]
    assert "made  2 experiments: 1 kept, 1 discarded" in lines[2]
    assert "an hour" not in lines[0]


def test_best_is_the_last_one_kept_whatever_an_older_one_scored() -> None:
    past = (
        experiment(0, "Baseline", Verdict.KEEP, 1.75, 1.77),
        experiment(1, "A lucky win", Verdict.KEEP, 1.70, gain=0.05),
        experiment(2, "A win on more seeds", Verdict.KEEP, 1.69, 1.73, gain=0.01),
    )
    stream = Terminal()
    with LiveView(stream, Heading("nov20", "search", "8 hours", past)):
        pass
    assert "best  1.7100  #2     +0.0500 over the baseline's 1.7600" in screen(stream.getvalue())[1]
    (arena,) = standings(past)
    assert arena.incumbent is not None
    assert (arena.incumbent.experiment.id, arena.incumbent.total_gain) == (2, pytest.approx(0.05))


def test_text_of_a_model_is_never_obeyed() -> None:
    stream = Terminal()
    with LiveView(stream, HEADING) as view:
        view.experiment_opened(experiment(7, HOSTILE))
        view.trial_started(job(7))
        view.trial_progress(job(7), Progress(HOSTILE))
        view.trial_ended(job(7), Result(Outcome.CRASH, HOSTILE))
        view.experiment_judged(experiment(7, HOSTILE, Verdict.FAILED, reason=HOSTILE))
        view.say(HOSTILE)
    output = stream.getvalue()
    assert output.count("[red]big[/red] :smile:") >= 3
    assert re.findall(r"\x1b(?!\[(?:[\d;]*m|\d*A|2K|\?25[lh]))", output) == []
    assert not set(output) & {"\x07", "\u202e"}


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf"), 1e300, -0.5])
def test_a_loss_of_any_kind_can_be_shown(loss: float | None) -> None:
    stream, log = Terminal(), io.StringIO()
    with LiveView(stream, HEADING) as live, PlainView(log, HEADING, clock=iter(range(0, 999, 31)).__next__) as flat:
        for view in (live, flat):
            view.trial_started(job(1))
            view.trial_progress(job(1), Progress("training", float("nan"), 3, 4096, 0.0, loss))
        live.say("Now")
        shown = screen(stream.getvalue())
    assert any((figure(loss, most=100) or " - ") in line for line in shown if line.lstrip().startswith("#1"))
    assert f"claimed_loss={figure(loss) or '-'}\n" in log.getvalue()


def test_no_colour_means_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with LiveView(stream, HEADING) as view:
        night(view)
    assert not re.search(r"\x1b\[[\d;]*3[0-7]m", stream.getvalue())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_cursor_comes_back_whatever_ends_the_run(error: type[BaseException]) -> None:
    def run() -> None:
        with LiveView(stream, HEADING):
            raise error

    stream = Terminal()
    with pytest.raises(error):
        run()
    assert stream.getvalue().rindex(CURSOR_ON) > stream.getvalue().rindex(CURSOR_OFF)


def test_a_terminal_that_hangs_up_does_not_end_the_run(clock: Hands) -> None:
    with LiveView(HungUp(), HEADING) as live, plain(HungUp(), clock) as flat:
        night(live)
        night(flat)


def test_a_closed_pipe_does_not_end_the_run(clock: Hands) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    night(PlainView(stream, HEADING, clock=clock))
    with pytest.raises(BrokenPipeError):
        stream.close()


KILLED = """
import os, signal, sys
from harness.live import LiveView
from harness.told import Heading
with LiveView(sys.stdout, Heading("nov20", "search", "8 hours")) as view:
    view.say("Now")
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""


def on_a_terminal(code: str) -> tuple[int, str]:
    """Exit status and output of a program that has a terminal of its own."""
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    output = b""
    try:
        while chunk := os.read(master, 65536):
            output += chunk
    except OSError:  # how Linux says that nobody has the terminal open any more
        pass
    finally:
        os.close(master)
    return process.wait(), output.decode()


def test_the_cursor_comes_back_when_the_run_is_killed() -> None:
    status, output = on_a_terminal(KILLED)
    assert status == -signal.SIGTERM
    assert "Now" in output
    assert output.rindex(CURSOR_ON) > output.rindex(CURSOR_OFF)


def test_what_others_print_goes_above_the_picture() -> None:
    code = KILLED.replace('view.say("Now")', 'print("[b]from elsewhere[/b]")').replace(
        "os.kill", "sys.exit() or os.kill"
    )
    status, output = on_a_terminal(code)
    lines = screen(output.replace("\r\n", "\n"))
    assert status == 0
    assert lines[0] == "[b]from elsewhere[/b]"
    assert lines[1].startswith("── nov20")


def test_a_handler_of_someone_else_is_left_in_place() -> None:
    def mine(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with LiveView(Terminal(), HEADING):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_signal_handler_is_gone_afterwards() -> None:
    with LiveView(Terminal(), HEADING):
        assert callable(signal.getsignal(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_events_from_one_thread_and_frames_from_another_never_block_each_other() -> None:
    with LiveView(Terminal(), HEADING) as view:
        frames = threading.Thread(target=lambda: [view._live.refresh() for _ in range(40)])
        frames.start()
        for number in range(40):
            view.trial_progress(job(number), Progress("training", 0.5))
            view.say(f"News {number}")
        frames.join(timeout=60)
        assert not frames.is_alive()
