"""The clock of a process tree: real processes, looked at from outside as the feeder does."""

from __future__ import annotations

import os
import random
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.clock import TreeClock, read_process
from harness.sandbox.supervisor import children

ROOT = Path(__file__).parents[1]
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
LOOKS_A_SECOND = 50

SUPERVISOR = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # a subreaper, which waits for all whom it adopts
command = subprocess.Popen(sys.argv[1:])
while os.wait()[0] != command.pid:
    pass
"""
TRAINER = """
import ctypes, multiprocessing, os, signal, subprocess, sys, threading, time

def burn(seconds):
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass

def child(work, *args):
    pid = os.fork()
    if pid == 0:
        work(*args)
        os._exit(0)
    return pid

def wait():  # returns once all have ended, though they are forgotten
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass

print("ready", flush=True)
input()
before = sum(os.times()[:4])
{work}
print(sum(os.times()[:4]) - before, flush=True)
input()
"""
BWRAP = ["bwrap", "--unshare-pid", "--dev-bind", "/", "/", "--proc", "/proc", "--die-with-parent"]


def puts_up_walls() -> bool:
    return bool(shutil.which("bwrap")) and not subprocess.run([*BWRAP, "true"], capture_output=True).returncode


@pytest.fixture(params=["as it is", "in a PID namespace"])
def walls(request: pytest.FixtureRequest) -> list[str]:
    """What stands before the command that starts a trainer."""
    if request.param == "as it is":
        return []
    if not puts_up_walls():
        pytest.skip("bubblewrap is not installed, or cannot make a PID namespace here")
    return BWRAP


class Watched:
    """A trainer that has done its work under the eyes of a clock."""

    def __init__(self, walls: list[str], work: str) -> None:
        trainer = [*walls, sys.executable, "-c", TRAINER.replace("{work}", work)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", SUPERVISOR, *trainer], text=True, **pipes) as root:
            assert root.stdin is not None
            assert root.stdout is not None
            assert root.stdout.readline() == "ready\n"
            clock = TreeClock(root.pid)
            began = time.monotonic()
            root.stdin.write("\n")
            root.stdin.flush()
            while not select.select([root.stdout], [], [], random.expovariate(LOOKS_A_SECOND))[0]:
                clock.spent()
            self.spent = clock.spent()
            self.passed = time.monotonic() - began
            self.used = float(root.stdout.readline())
            """By its own account, of itself and of the children that it waited for."""
            root.stdin.close()
            while root.poll() is None:
                clock.spent()
            self.at_the_end = clock.spent()


# --- what is counted ------------------------------------------------------------------------------------------


def test_the_time_of_a_child_counts_while_it_lives_and_after() -> None:
    clock = TreeClock(os.getpid())
    with subprocess.Popen([sys.executable, "-c", BURN.format(seconds=0.3)]) as child:
        assert child.pid in children(os.getpid())
        seen = [clock.spent()]
        while child.poll() is None:
            seen.append(clock.spent())
    assert clock.spent() >= 0.29
    assert seen == sorted(seen)


def test_the_time_of_the_root_does_not_count() -> None:
    clock = TreeClock(os.getpid())
    until = time.process_time() + 0.2
    while time.process_time() < until:
        clock.spent()
    assert clock.spent() == 0.0


def test_the_time_of_a_root_that_works_itself_counts() -> None:
    clock = TreeClock(os.getpid(), count_root=True)
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert clock.spent() >= 0.19


def test_what_was_used_before_the_start_does_not_count() -> None:
    with subprocess.Popen([sys.executable, "-c", BURN.format(seconds=0.2) + "input()"], stdin=subprocess.PIPE) as old:
        while (found := read_process(old.pid)) and found.own < 0.2:
            pass
        clock = TreeClock(os.getpid())
        old.communicate()
        assert clock.spent() <= 0.1


def test_what_is_left_out_does_not_count() -> None:
    with subprocess.Popen([sys.executable, "-c", BURN.format(seconds=0.3) + "input()"], stdin=subprocess.PIPE) as ours:
        clock = TreeClock(os.getpid(), leave_out=ours.pid)
        while (found := read_process(ours.pid)) and found.own < 0.3:
            os.sched_yield()
        spent = clock.spent()
        ours.communicate()
    assert spent == 0.0


def test_a_tree_that_is_gone_has_used_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert TreeClock(child.pid).spent() == 0.0


# --- honest trees ---------------------------------------------------------------------------------------------

HONEST = {
    "workers that live long": "workers = [child(burn, 0.2) for _ in range(2)]\nburn(0.2)\nwait()",
    "a pool": "with multiprocessing.Pool(2) as pool: pool.map(burn, [0.02] * 20)\npool.join()",
    "short children": "for _ in range(100): os.waitpid(child(burn, 0.005), 0)",
    "a compiler and its passes": "for _ in range(30): subprocess.run(['sh', '-c', 'sh -c \"true; (true)\" | cat'])",
    "short threads": "for _ in range(100):\n    t = threading.Thread(target=burn, args=[0.005]); t.start(); t.join()",
    "a killed worker": "for _ in range(5):\n    p = child(burn, 9); burn(0.02); os.kill(p, 9); os.waitpid(p, 0)",
}


@pytest.mark.parametrize("work", HONEST.values(), ids=HONEST)
def test_an_honest_tree_is_charged_what_it_used_and_no_more(walls: list[str], work: str) -> None:
    tree = Watched(walls, work)
    assert tree.used - 0.05 <= tree.spent <= tree.used + 0.05


def test_the_time_of_orphans_counts_once(walls: list[str]) -> None:
    tree = Watched(walls, "for _ in range(40): os.waitpid(child(child, burn, 0.01), 0)\nburn(0.2)")
    assert 0.55 <= tree.spent <= tree.used + 0.4 + 0.1


def test_what_ends_with_its_namespace_is_not_held_against_it(walls: list[str]) -> None:
    tree = Watched(walls, "for _ in range(3): subprocess.Popen(['sh', '-c', 'sleep 9; true'])\nburn(0.1)")
    assert tree.at_the_end <= tree.used + 0.2


# --- trees that would forget -------------------------------------------------------------------------------------

IGNORE = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
NO_WAITING = """
class Action(ctypes.Structure):
    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16), ("flags", ctypes.c_int)]
libc = ctypes.CDLL(None)
libc.sigaction(signal.SIGCHLD, ctypes.byref(Action(flags=2)), None)  # SA_NOCLDWAIT: not to be seen from outside
libc.prctl(36, 1, 0, 0, 0)
"""
FILTER = f"""
sys.path.insert(0, {str(ROOT)!r})
from harness.sandbox import seccomp
seccomp.install(seccomp.program(alone=False, gpu=False, own_signals=False))
"""
CHAIN = "for _ in range({count}):\n    child(burn, {seconds}); wait()\n"
HOSTILE = {
    "ignoring SIGCHLD": IGNORE + CHAIN.format(count=60, seconds=0.01),
    "with SA_NOCLDWAIT": NO_WAITING + CHAIN.format(count=60, seconds=0.01),
    "very short ones": IGNORE + CHAIN.format(count=200, seconds=0.003),
    "side by side": IGNORE + "for _ in range(60): child(burn, 0.01)\nwait()",
    "below a sleeping parent": NO_WAITING
    + "def pair():\n    child(burn, 0.01)\n    time.sleep(0.009)\nfor _ in range(60):\n    child(pair); wait()\n",
    "beside one that is waited for": IGNORE + "subprocess.run(['true'])\n" + CHAIN.format(count=60, seconds=0.01),
}


@pytest.mark.parametrize("work", HOSTILE.values(), ids=HOSTILE)
def test_no_tree_behind_the_filter_hides_what_its_children_used(walls: list[str], work: str) -> None:
    tree = Watched(walls, FILTER + work)
    assert tree.used >= 0.5
    assert tree.spent >= tree.used - 0.05
