"""Processes under supervision: nothing outlives its trial, and nothing it prints can hurt."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from harness.sandbox.process import Command, Supervised, environment
from harness.sandbox.scratch import remove
from harness.sandbox.supervisor import HEAD_BYTES, TAIL_BYTES


def command(folder: Path, code: str, **options: object) -> Command:
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    env = environment(folder, os.environ)
    return Command(argv=argv, cwd=folder, output=folder / "output.log", env=env, **options)  # type: ignore[arg-type]


def run(folder: Path, code: str, **options: object):
    async def go():
        running = await Supervised.start(command(folder, code, **options))
        return await asyncio.wait_for(running.wait(), 60)

    return asyncio.run(go())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def read_line(path: Path) -> str:
    """The first line of a file that a process is about to write."""
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text().strip()


def test_exit_code_and_output_are_reported(tmp_path: Path) -> None:
    ended = run(tmp_path, "print('seen'); raise SystemExit(3)")
    assert (ended.code, ended.cut) == (3, False)
    assert (tmp_path / "output.log").read_text() == "seen\n"


def test_death_by_signal_is_a_negative_code(tmp_path: Path) -> None:
    assert run(tmp_path, "import os; os.kill(os.getpid(), 9)").code == -signal.SIGKILL


def test_a_command_that_cannot_be_started_ends_with_127(tmp_path: Path) -> None:
    async def go():
        env = environment(tmp_path, {})
        bad = Command(argv=["/no/such/program"], cwd=tmp_path, output=tmp_path / "log", env=env)
        return await (await Supervised.start(bad)).wait()

    assert asyncio.run(go()).code == 127
    assert "/no/such/program" in (tmp_path / "log").read_text()


def test_a_daemon_that_detached_itself_ends_with_its_trial(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                open("pid", "w").write(f"{os.getpid()}\\n")
                time.sleep(600)
            os._exit(0)
        while not os.path.exists("pid") or not open("pid").read():
            time.sleep(0.01)
        """,
    )
    assert ended.code == 0
    assert not alive(int((tmp_path / "pid").read_text()))


def test_the_whole_tree_ends_when_the_harness_ends_it(tmp_path: Path) -> None:
    code = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = os.fork()
    if child:
        open("pids", "w").write(f"{os.getpid()} {child}\\n")
    time.sleep(600)
    """

    async def go():
        running = await Supervised.start(command(tmp_path, code))
        pids = await asyncio.to_thread(read_line, tmp_path / "pids")
        return pids, await running.end()

    pids, ended = asyncio.run(go())
    assert ended.cut
    assert not any(alive(int(pid)) for pid in pids.split())


def test_the_whole_tree_ends_when_the_harness_is_killed(tmp_path: Path) -> None:
    harness = f"""
    import asyncio, os, sys
    from pathlib import Path
    from harness.sandbox.process import Command, Supervised, environment
    async def go():
        folder = Path({str(tmp_path)!r})
        code = "import os, time; open('pid', 'w').write(f'{{os.getpid()}}\\\\n'); time.sleep(600)"
        argv = [sys.executable, "-c", code]
        command = Command(argv=argv, cwd=folder, output=folder / "log", env=environment(folder, os.environ))
        await (await Supervised.start(command)).wait()
    asyncio.run(go())
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(harness)])
    pid = int(read_line(tmp_path / "pid"))
    driver.kill()
    driver.wait()
    wait_until_gone(pid)


def test_the_command_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    code = "import os, time; open('pid', 'w').write(f'{os.getpid()}\\n'); os.kill(os.getppid(), 9); time.sleep(600)"
    ended = run(tmp_path, code)
    assert ended.code is None
    wait_until_gone(int(read_line(tmp_path / "pid")))


def test_a_folder_too_deep_for_python_is_removed(tmp_path: Path) -> None:
    deep = "import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')"
    (tmp_path / "scratch").mkdir()
    subprocess.run([sys.executable, "-c", deep], cwd=tmp_path / "scratch", check=True)
    remove(tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_output_is_capped_and_its_end_is_kept(tmp_path: Path) -> None:
    run(tmp_path, "import sys\nfor _ in range(64): sys.stdout.write('x' * (1 << 20))\nprint('the end')")
    log = (tmp_path / "output.log").read_bytes()
    assert len(log) <= HEAD_BYTES + 2 * TAIL_BYTES
    assert b"bytes left out" in log
    assert log.endswith(b"the end\n")


def test_a_grandchild_that_holds_the_output_open_delays_nothing(tmp_path: Path) -> None:
    started = time.monotonic()
    run(tmp_path, "import subprocess; subprocess.Popen(['sleep', '600']); print('done')")
    assert time.monotonic() - started < 30
    assert "done" in (tmp_path / "output.log").read_text()


def test_nothing_of_our_environment_but_an_allowlist_reaches_a_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    monkeypatch.setenv("SECRET", "planted")
    run(tmp_path, "import os; print(dict(os.environ))")
    assert "planted" not in (tmp_path / "output.log").read_text()


def test_only_named_descriptors_are_inherited(tmp_path: Path) -> None:
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


def test_a_command_runs_on_its_cores_alone(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    run(tmp_path, "import os; print(os.sched_getaffinity(0))", cores=[core])
    assert (tmp_path / "output.log").read_text() == f"{{{core}}}\n"
