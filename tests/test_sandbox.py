"""Processes under supervision: nothing outlives its trial, and nothing it prints can hurt."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import SandboxError
from harness.sandbox.bounds import Bounds
from harness.sandbox.process import Command, Supervised, environment
from harness.sandbox.scratch import remove
from harness.sandbox.supervisor import HEAD_BYTES, TAIL_BYTES
from harness.sandbox.walls import Sandbox


def command(folder: Path, code: str, **options: object) -> Command:
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    env = environment(folder, os.environ)
    return Command(argv=argv, cwd=folder, output=folder / "output.log", env=env, **options)  # type: ignore[arg-type]


@pytest.fixture
def run(sandbox: Sandbox):
    """Runs code to its end in the highest sandbox of this machine; with `bounds`, in other ones than its own."""

    def go(folder: Path, code: str, bounds: Bounds | None = None, **options: object):
        walls = replace(sandbox, bounds=bounds or sandbox.bounds)

        async def ended():
            running = await Supervised.start(command(folder, code, **options), walls)
            return await asyncio.wait_for(running.wait(), 60)

        return asyncio.run(ended())

    return go


def living(folder: Path) -> list[int]:
    """Processes that stand in a folder, whatever number they have where they live; without zombies."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            here = os.readlink(f"/proc/{pid}/cwd") == str(folder)
            if here and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(pid))
    return found


def wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while left := living(folder):
        assert time.monotonic() < deadline, f"processes {left} are still there"
        time.sleep(0.01)


def read_line(path: Path) -> str:
    """The first line of a file that a process is about to write."""
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text().strip()


def test_exit_code_and_output_are_reported(run, tmp_path: Path) -> None:
    ended = run(tmp_path, "print('seen'); raise SystemExit(3)")
    assert (ended.code, ended.cut) == (3, False)
    assert (tmp_path / "output.log").read_text() == "seen\n"


def test_death_by_signal_is_a_negative_code(run, tmp_path: Path) -> None:
    assert run(tmp_path, "import os; os.kill(os.getpid(), 9)").code == -signal.SIGKILL


def test_a_command_that_cannot_be_started_is_named(tmp_path: Path, sandbox: Sandbox) -> None:
    async def go():
        env = environment(tmp_path, {})
        bad = Command(argv=["/no/such/program"], cwd=tmp_path, output=tmp_path / "log", env=env)
        return await (await Supervised.start(bad, sandbox)).wait()

    with suppress(SandboxError):  # bubblewrap itself tells it as an error
        assert asyncio.run(go()).code == 127
    assert "/no/such/program" in (tmp_path / "log").read_text()


def test_a_daemon_that_detached_itself_ends_with_its_trial(run, tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                open("ready", "w").close()
                time.sleep(600)
            os._exit(0)
        while not os.path.exists("ready"):
            time.sleep(0.01)
        """,
    )
    assert ended.code == 0
    assert not living(tmp_path)


def test_the_whole_tree_ends_when_the_harness_ends_it(tmp_path: Path, sandbox: Sandbox) -> None:
    code = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork():
        open("ready", "w").write("\\n")
    time.sleep(600)
    """

    async def go():
        running = await Supervised.start(command(tmp_path, code), sandbox)
        await asyncio.to_thread(read_line, tmp_path / "ready")
        before = len(living(tmp_path))
        return before, await running.end()

    before, ended = asyncio.run(go())
    assert ended.cut
    assert before >= 2
    assert not living(tmp_path)


def test_the_whole_tree_ends_when_the_harness_is_killed(tmp_path: Path) -> None:
    harness = f"""
    import asyncio, os, sys
    from pathlib import Path
    from harness.sandbox import levels
    from harness.sandbox.process import Command, Supervised, environment
    sandbox = levels.choose(os.environ, levels.bounds("cpu", 4096, 1), unsandboxed=True)
    async def go():
        folder = Path({str(tmp_path)!r})
        code = "import time; open('ready', 'w').write('\\\\n'); time.sleep(600)"
        argv = [sys.executable, "-c", code]
        command = Command(argv=argv, cwd=folder, output=folder / "log", env=environment(folder, os.environ))
        await (await Supervised.start(command, sandbox)).wait()
    asyncio.run(go())
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(harness)])
    read_line(tmp_path / "ready")
    driver.kill()
    driver.wait()
    wait_until_gone(tmp_path)


def test_the_whole_tree_ends_when_its_supervisor_is_killed(tmp_path: Path, sandbox: Sandbox) -> None:
    if sandbox.level < 3:
        pytest.skip("only namespaces end what the command had started")
    code = "import os, time; os.fork() and open('ready', 'w').write('\\n'); time.sleep(600)"

    async def go():
        running = await Supervised.start(command(tmp_path, code), sandbox)
        await asyncio.to_thread(read_line, tmp_path / "ready")
        os.kill(running.pid, signal.SIGKILL)
        return await running.wait()

    assert asyncio.run(go()).code is None
    wait_until_gone(tmp_path)


def test_a_folder_too_deep_for_python_is_removed(tmp_path: Path) -> None:
    deep = "import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')"
    (tmp_path / "scratch").mkdir()
    subprocess.run([sys.executable, "-c", deep], cwd=tmp_path / "scratch", check=True)
    remove(tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_output_is_capped_and_its_end_is_kept(run, tmp_path: Path) -> None:
    run(tmp_path, "import sys\nfor _ in range(64): sys.stdout.write('x' * (1 << 20))\nprint('the end')")
    log = (tmp_path / "output.log").read_bytes()
    assert len(log) <= HEAD_BYTES + 2 * TAIL_BYTES
    assert b"bytes left out" in log
    assert log.endswith(b"the end\n")


def test_a_grandchild_that_holds_the_output_open_delays_nothing(run, tmp_path: Path) -> None:
    started = time.monotonic()
    run(tmp_path, "import subprocess; subprocess.Popen(['sleep', '600']); print('done')")
    assert time.monotonic() - started < 30
    assert "done" in (tmp_path / "output.log").read_text()


def test_nothing_of_our_environment_but_an_allowlist_reaches_a_command(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    monkeypatch.setenv("SECRET", "planted")
    run(tmp_path, "import os; print(dict(os.environ))")
    assert "planted" not in (tmp_path / "output.log").read_text()


def test_only_named_descriptors_are_inherited(run, tmp_path: Path) -> None:
    kept, other = os.pipe(), os.pipe()
    for fd in (*kept, *other):
        os.set_inheritable(fd, True)
    try:
        run(tmp_path, "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))", fds=[kept[0]])
    finally:
        for fd in (*kept, *other):
            os.close(fd)
    seen = {int(word) for word in (tmp_path / "output.log").read_text().strip("[]\n").split(",")}
    listing_itself = 1
    assert kept[0] in seen
    assert len(seen - {0, 1, 2, kept[0]}) == listing_itself


def test_a_command_runs_on_its_cores_alone(run, tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    run(tmp_path, "import os; print(os.sched_getaffinity(0))", cores=[core])
    assert (tmp_path / "output.log").read_text() == f"{{{core}}}\n"


SMALL = Bounds(memory_mb=200, processes=30, disk_mb=8, files=50)

BEYOND = {
    "memory": """
        import os, time
        os.fork()
        held = b"x" * 150_000_000
        time.sleep(60)
        """,
    "processes": """
        import os, time
        while True:
            if os.fork() == 0:
                time.sleep(60)
        """,
    "disk": """
        import time
        for number in range(60):
            open(f"f{number}", "w").write("x")
        time.sleep(60)
        """,
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_tree_that_passes_a_bound_is_ended_with_the_figures(run, tmp_path: Path, what: str) -> None:
    ended = run(tmp_path, BEYOND[what], bounds=SMALL)
    assert ended.exceeded is not None
    assert ended.exceeded.what == what
    assert re.search(r"\d+", ended.exceeded.figures)
    assert ended.cut
    assert not living(tmp_path)


def test_a_large_file_is_counted_by_what_it_takes(run, tmp_path: Path) -> None:
    code = "import time\nfor n in range(3): open(f'f{n}', 'wb').write(bytes(4 << 20))\ntime.sleep(60)"
    ended = run(tmp_path, code, bounds=SMALL)
    assert ended.exceeded is not None
    assert "8 MB" in ended.exceeded.figures


def test_a_file_cannot_grow_beyond_the_disk_bound(run, tmp_path: Path) -> None:
    run(tmp_path, "open('f', 'wb').truncate(1 << 40)", bounds=SMALL)
    assert "File too large" in (tmp_path / "output.log").read_text()


def test_one_process_cannot_take_more_than_the_memory_bound(run, tmp_path: Path) -> None:
    run(tmp_path, "import mmap; mmap.mmap(-1, 400 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)", bounds=SMALL)
    assert "Cannot allocate memory" in (tmp_path / "output.log").read_text()


def test_a_sandbox_that_cannot_be_put_up_is_an_error_and_no_result(tmp_path: Path, sandbox: Sandbox) -> None:
    if sandbox.level < 3:
        pytest.skip("only bubblewrap can fail by itself")
    broken = replace(sandbox, view=replace(sandbox.view, read=("/no/such/folder",)))

    async def go():
        return await (await Supervised.start(command(tmp_path, "pass"), broken)).wait()

    with pytest.raises(SandboxError, match="no/such/folder"):
        asyncio.run(go())
