"""The node agent: truthful exit codes, the failing rank's own words, nobody left behind."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from curricle.launch.agent import _first_failure, arguments, wait_for_first_node
from curricle.launch.heartbeat import Heartbeat
from tests.training.toy import make_config, make_stage

SCRIPTS = {
    "fine": "print('fine')",
    "code42": "import os, sys, time; time.sleep(30 * (os.environ['RANK'] != %LAST%)); sys.exit(42)",
    "kill": "import os, time; time.sleep(30 * (os.environ['RANK'] != %LAST%)); os.kill(os.getpid(), 9)",
    "words": "import os, sys, json, time; time.sleep(30 * (os.environ['RANK'] != %LAST%));"
    "open(os.environ['TORCHELASTIC_ERROR_FILE'], 'w').write(json.dumps({'message': {'message': 'no such bird', 'errorCode': 2,"
    "'extraInfo': {'timestamp': '1', 'time': 1.5}}})); sys.exit(2)",
    "asks": "import sys; print('read', repr(sys.stdin.read()))",
    "graceful": "import os, signal, sys, time\n"
    "def save(*_):\n    open(os.environ['SAVED'] + os.environ['RANK'], 'w').close(); sys.exit(143)\n"
    "signal.signal(signal.SIGTERM, save)\nprint('ready', flush=True)\n"
    "for _ in range(600): time.sleep(0.1)",  # a signal right before one long sleep would be noticed after it
    "stubborn": "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)",
}


def start(name, processes, tmp_path, *options, **env):
    script = tmp_path / f"{name}.py"
    script.write_text(SCRIPTS[name].replace("%LAST%", repr(str(processes - 1))))
    command = [sys.executable, *arguments((str(script),), nnodes=1, nproc_per_node=processes)]
    log = tmp_path / "termination-log"
    log.touch()
    command[command.index("--") : command.index("--")] = ["--termination-log", str(log), *options]
    return subprocess.Popen(
        command,
        env={
            **os.environ,
            "TORCHELASTIC_ERROR_FILE": str(tmp_path / "error.json"),
            "SAVED": str(tmp_path / "saved"),
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_ready(agent, processes):
    ready = 0
    while ready < processes:
        line = agent.stdout.readline()
        assert line, "the agent ended early"
        ready += "ready" in line


def left(tmp_path) -> list[str]:
    """Processes whose command line names this test's folder."""
    commands = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(tmp_path) in text:
            commands.append(text)
    return commands


def gone(tmp_path, seconds=15) -> bool:
    end = time.monotonic() + seconds
    while left(tmp_path) and time.monotonic() < end:
        time.sleep(0.1)
    return not left(tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("fine", 0, ""),
        ("code42", 42, "left no message"),
        ("kill", 137, "killed by SIGKILL"),
        ("words", 2, "no such bird"),
    ],
)
def test_the_exit_code_and_the_words_are_the_failing_ranks_own(tmp_path, processes, name, code, words):
    agent = start(name, processes, tmp_path)
    output = agent.communicate(timeout=60)[0]
    assert agent.returncode == code, output
    if code:
        said = json.loads((tmp_path / "error.json").read_text())["message"]
        assert (
            words in said["message"]
            and said["errorCode"] == code
            and said["extraInfo"]["where"] == f"rank {processes - 1}"
        )
        assert words in (tmp_path / "termination-log").read_text()
    assert gone(tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_request_to_stop_reaches_every_rank_and_ends_with_143(tmp_path, processes):
    agent = start("graceful", processes, tmp_path)
    until_ready(agent, processes)
    agent.terminate()
    output = agent.communicate(timeout=30)[0]
    assert agent.returncode == 128 + signal.SIGTERM, output
    assert len(list(tmp_path.glob("saved*"))) == processes and gone(tmp_path), output


@pytest.mark.parametrize("processes", [1, 2])
def test_a_rank_that_does_not_want_to_stop_is_killed_after_the_grace(tmp_path, processes):
    agent = start("stubborn", processes, tmp_path, TORCH_ELASTIC_SHUTDOWN_TIMEOUT="1")
    until_ready(agent, processes)
    agent.terminate()
    agent.communicate(timeout=30)
    assert agent.returncode == 143 and gone(tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_ranks_whose_launcher_falls_silent_save_and_say_so(tmp_path, processes):
    heart = Heartbeat(f"{tmp_path}/heartbeat", print, every=1)
    agent = start("graceful", processes, tmp_path, "--heartbeat", f"{tmp_path}/heartbeat", "--heartbeat-seconds", "12")
    until_ready(agent, processes)
    heart.stop()
    output = agent.communicate(timeout=60)[0]
    assert agent.returncode == 143, output
    assert all((tmp_path / f"saved{rank}").exists() for rank in range(processes))
    assert "has not shown itself for 12 s" in (tmp_path / "termination-log").read_text()


def failure(exit_code, noticed, said=None):
    """A rank's failure as torchrun hands it on: when it noticed it, and what the rank wrote of itself."""
    message = {"message": "words", "extraInfo": {"time": said}} if said else "no word"
    return SimpleNamespace(exitcode=exit_code, timestamp=noticed, error_file_data={"message": message})


@pytest.mark.parametrize(
    ("failures", "blamed"),
    [
        ({0: failure(1, 10), 1: failure(1, 11)}, 0),
        ({0: failure(1, 10, said=10.5), 1: failure(1, 11, said=9.5)}, 1),
        ({0: failure(1, 10), 1: failure(-9, 11)}, 1),
        ({0: failure(1, 10), 1: failure(-9, 16)}, 0),
        ({0: failure(75, 11), 1: failure(1, 10)}, 0),
        ({0: failure(-15, 9), 1: failure(143, 9), 2: failure(1, 10)}, 2),
        ({0: failure(-15, 11), 1: failure(-15, 10)}, 1),
    ],
    ids=[
        "the earliest",
        "by its own word",
        "one that was killed",
        "but not at the end of the grace",
        "one whose store is away",
        "none that obeyed",
        "unless all did",
    ],
)
def test_the_rank_to_blame(failures, blamed):
    assert _first_failure(failures) == (blamed, failures[blamed])


@pytest.mark.parametrize("processes", [1, 2])
def test_ranks_read_nothing_of_what_is_piped_into_the_command(processes, tmp_path):
    script = tmp_path / "asks.py"
    script.write_text(SCRIPTS["asks"])
    command = [sys.executable, *arguments((str(script),), nnodes=1, nproc_per_node=processes)]
    done = subprocess.run(command, input="y\n" * 9, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and (done.stdout + done.stderr).count("read ''") == processes


@pytest.mark.parametrize(("processes", "tries"), [(1, 12), (2, 2)])
def test_no_rank_outlives_an_agent_that_is_killed_in_its_first_second(tmp_path, processes, tries):
    """A rank that is still starting cannot be told of a death that was before it asked to be told."""
    uri = make_stage(tmp_path, make_config(tmp_path, max_epochs=100_000, devices=processes))
    worker = ("-m", "tests.training.toy_worker", "--stage-uri", uri)
    command = [sys.executable, *arguments(worker, nnodes=1, nproc_per_node=processes)]
    draw = random.Random(processes)
    for delay in (0.0, *(draw.uniform(0, 0.7) for _ in range(tries - 1))):
        agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(left(tmp_path)) < 1 + processes:
            assert agent.poll() is None
            time.sleep(0.005)
        time.sleep(delay)
        agent.kill()
        agent.wait()
        assert gone(tmp_path, 3), f"killed {delay:.2f} s after the ranks' start"


@pytest.mark.parametrize("processes", [1, 2])
def test_an_agent_whose_command_has_ended_before_it_could_look_starts_nothing_that_stays(tmp_path, processes):
    uri = make_stage(tmp_path, make_config(tmp_path, max_epochs=100_000, devices=processes))
    worker = ("-m", "tests.training.toy_worker", "--stage-uri", uri)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    command = [sys.executable, *arguments(worker, nnodes=1, nproc_per_node=processes, parent=ended.pid)]
    agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert "stopped by SIGTERM" in agent.communicate(timeout=30)[1]
    assert agent.returncode == 143 and gone(tmp_path, 3)


def test_an_agent_that_was_told_of_no_parent_outlives_the_process_that_started_it(tmp_path):
    """As in a pod, where whatever started the container's first process is nobody's business."""
    script = tmp_path / "slow.py"
    script.write_text("import sys, time; time.sleep(2); open(sys.argv[1], 'w').close()")
    command = [sys.executable, *arguments((str(script), str(tmp_path / "ended")), nnodes=1, nproc_per_node=1)]
    subprocess.run([sys.executable, "-c", f"import subprocess; subprocess.Popen({command!r})"], check=True)
    assert gone(tmp_path) and (tmp_path / "ended").exists()


def test_the_first_node_is_waited_for_until_its_name_is_known_and_it_listens():
    """A pod's name is unknown in its first second, and its image may take minutes."""
    known, asked = {"first": [set(), set(), {"10.0.0.7"}]}, []

    def addresses(host):
        found = known.get(host, [{"10.0.0.9"}])
        return found.pop(0) if len(found) > 1 else found[0]

    def listens(host, port):
        asked.append((host, port))
        return len(asked) == 3

    assert wait_for_first_node("first:29500", pause=0.001, addresses=addresses, listens=listens)
    assert asked == [("first", 29500)] * 3
    assert not wait_for_first_node("none:1", limit=0.01, pause=0.001, addresses=lambda host: set(), listens=listens)


def test_the_first_node_waits_for_its_own_name_alone():
    own = wait_for_first_node("me.job:1", addresses=lambda host: {"10.0.0.9"}, listens=lambda host, port: pytest.fail())
    assert own and wait_for_first_node("localhost:1", listens=lambda host, port: pytest.fail())
