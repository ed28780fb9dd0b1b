"""The node agent: the one process of a node that starts the ranks, outlives them, and says truthfully how they ended.

    python -m curricle.launch.agent --nnodes N --nproc-per-node P [--rdzv-endpoint HOST:PORT] -- -m curricle.training.worker ...

It runs torchrun's elastic agent inside its own process, because bare torchrun ends with 1 whatever happened and leaves its
ranks behind when it is killed. Here

- the exit code is the first failing rank's own (128 + signal for a signal: 137 for SIGKILL, which mostly means out of memory);
- what that rank said of itself goes to `TORCHELASTIC_ERROR_FILE` (TorchX reads it) and to the pod's termination log;
- when the launcher vanishes (`--parent` on this machine, or the heartbeat of one elsewhere), the ranks are stopped gracefully
  (SIGTERM: they save) and nothing is left; when the agent itself is killed, its ranks die (`store.process.die_with`).

There are no restarts in here, unless the job is elastic: the launcher resubmits the whole job. Rendezvous is always c10d, with a store of its own for the
ranks: the shared one of torch 2.13 breaks restarts.

A job of one process needs no rendezvous: it is watched directly, and the seconds that importing torch takes are saved.
torch is imported inside `_elastic` only: the agent lives in the worker's image; the launcher, which may have no torch,
imports `arguments` from here.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from curricle import environment
from curricle.errors import StoreUnavailable
from curricle.launch import oom
from curricle.launch.heartbeat import wait_for_silence
from curricle.masking import masked
from curricle.store.process import when_gone
from curricle.store.scratch import scratch

SHUTDOWN_SECONDS = 7
"""Grace of the ranks on this machine: TorchX kills the agent after 10."""


FIRST_NODE_SECONDS = 600.0
"""How long the others wait for the first node: as long as torch waits for all to meet."""
LOOPBACK = frozenset({"127.0.0.1", "::1"})


def _addresses(host: str) -> set[str]:
    """The addresses of a host; none where nobody knows it."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)}
    except OSError:
        return set()


def _listens(host: str, port: int) -> bool:
    """Whether somebody takes a connection there."""
    try:
        socket.create_connection((host, port), 2).close()
    except OSError:
        return False
    return True


class End(NamedTuple):
    """How the ranks of this node ended."""

    exit_code: int
    message: str
    """The words of the first rank that failed, or ours."""
    where: str
    """That rank, or `agent`."""


WELL = End(0, "", "")
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class _AskedToStop(BaseException):
    """A signal came before there were ranks to hand it to."""

    def __init__(self, number: int):
        self.number = number


def arguments(
    argv: tuple[str, ...],
    *,
    nnodes: int,
    nproc_per_node: int,
    rdzv_endpoint: str = "",
    rdzv_id: str = "",
    local_addr: str = "",
    parent: int = 0,
) -> list[str]:
    """The agent's own command line after ``python``, for a worker's argv; `parent` is the process that starts it, 0 where that does not matter."""
    command = ["-m", "curricle.launch.agent", "--nnodes", str(nnodes), "--nproc-per-node", str(nproc_per_node)]
    options = {
        "--rdzv-endpoint": rdzv_endpoint,
        "--rdzv-id": rdzv_id,
        "--local-addr": local_addr,
        "--parent": str(parent or ""),
    }
    for name, value in options.items():
        if value:
            command += [name, value]
    return [*command, "--", *argv]


def main(argv: list[str] | None = None) -> int:
    """Run the ranks of this node to their end; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m curricle.launch.agent", description="Run one node's ranks of a training job."
    )
    parser.add_argument("--nnodes", default="1", help="number of nodes, or MIN:MAX")
    parser.add_argument("--nproc-per-node", type=int, default=1)
    parser.add_argument("--rdzv-endpoint", default="", help="host:port of the first node; not needed for one node")
    parser.add_argument("--rdzv-id", default="", help="the same on all nodes")
    parser.add_argument(
        "--max-restarts", type=int, default=0, help="restarts of the ranks after one failed, in an elastic job"
    )
    parser.add_argument("--node-rank", type=int, help="this node's number, for messages; c10d numbers the ranks itself")
    parser.add_argument("--local-addr", default="", help="this node's own address, where its host name is of no use")
    parser.add_argument(
        "--parent",
        type=int,
        default=0,
        metavar="PID",
        help="process that started this one, on this machine; when it ends, so do the ranks",
    )
    parser.add_argument(
        "--heartbeat",
        default="",
        metavar="URI",
        help="object that the launcher keeps rewriting; when that ends, so do the ranks",
    )
    parser.add_argument("--heartbeat-seconds", type=float, default=900.0, help="how long it may stand unchanged")
    parser.add_argument(
        "--termination-log", type=Path, default=Path("/dev/termination-log"), help="written where it exists"
    )
    parser.add_argument("worker", nargs="+", help="what each rank runs, after `python`")
    options = parser.parse_args(argv)
    if options.nnodes != "1" and not options.rdzv_endpoint:
        parser.error("--rdzv-endpoint is needed for more than one node")
    reasons: list[str] = []
    killed = oom.oom_kills()
    environment.set_default(environment.OMP_NUM_THREADS, "1")
    environment.name_agent()
    _close_standard_input()
    try:
        for number in STOPS:
            signal.signal(number, _raise_asked_to_stop)
        if options.parent:
            when_gone(options.parent, lambda: os.kill(os.getpid(), signal.SIGTERM))
        if options.heartbeat:
            _watch_launcher(options.heartbeat, options.heartbeat_seconds, reasons)
        with scratch("curricle-agent-") as folder:
            alone = options.nnodes == "1" and options.nproc_per_node == 1
            end = _single(options.worker, folder) if alone else _elastic(options, str(folder))
    except _AskedToStop as asked:
        end = _stopped(asked.number)
    if end.exit_code == 128 + signal.SIGKILL and (told := oom.told(killed)):
        reasons.append(told)
    if end.exit_code:
        _report(end, reasons, options.termination_log)
    return end.exit_code


def _close_standard_input() -> None:
    """Give this process and its ranks an empty standard input: what a user pipes into a command answers no question of a library."""
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)


def _raise_asked_to_stop(number: int, frame: Any) -> None:
    for again in STOPS:
        signal.signal(again, signal.SIG_IGN)
    raise _AskedToStop(number)


def _watch_launcher(uri: str, seconds: float, reasons: list[str]) -> None:
    """Stop gracefully when the launcher elsewhere falls silent; why is appended to `reasons`."""

    def watch() -> None:
        wait_for_silence(uri, seconds)
        reasons.append(f"its launcher has not shown itself for {seconds:.0f} s ({uri})")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="launcher", daemon=True).start()


def _single(worker: list[str], folder: Path) -> End:
    """Run the only rank."""
    error_file = folder / "error.json"
    asked: list[int] = []
    child: subprocess.Popen | None = None

    def stop(number: int, frame: Any) -> None:
        asked.append(number)
        if child is not None and len(asked) == 1:
            _stop_group(child.pid)

    for number in STOPS:
        signal.signal(number, stop)
    env = environment.of_only_rank(_unique(), error_file)
    child = subprocess.Popen([sys.executable, "-u", *worker], env=env, start_new_session=True)
    if asked:  # while it was being started
        _stop_group(child.pid)
    exit_code = child.wait()
    _kill_group(child.pid)
    if asked:
        return _stopped(asked[0])
    if exit_code == 0:
        return WELL
    error_data = json.loads(error_file.read_text()) if error_file.exists() else {}
    return _end_of_rank(0, exit_code, error_data)


def _elastic(options: argparse.Namespace, folder: str) -> End:
    """Run this node's ranks under torchrun's agent."""
    environment.give_ranks_their_own_store()
    import logging

    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    if options.rdzv_endpoint:
        wait_for_first_node(options.rdzv_endpoint)
    least, _, most = options.nnodes.partition(":")
    one = options.nnodes == "1"
    config = LaunchConfig(
        min_nodes=int(least),
        max_nodes=int(most or least),
        nproc_per_node=options.nproc_per_node,
        role="rank",
        run_id=options.rdzv_id or (_unique() if one else "curricle"),
        rdzv_backend="c10d",
        rdzv_endpoint=options.rdzv_endpoint or "localhost:0",
        local_addr=options.local_addr or ("localhost" if one else None),
        max_restarts=options.max_restarts,
        monitor_interval=0.1,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=folder, tee=Std.ALL),
        log_line_prefix_template="[${rank}] ",
        shutdown_timeout=_grace(),
    )
    try:
        elastic_launch(config, sys.executable)("-u", *options.worker)
        return WELL
    except SignalException as stopped:
        return _stopped(stopped.sigval)
    except ChildFailedError as error:
        rank, failure = _first_failure(error.failures)
        return _end_of_rank(rank, failure.exitcode, failure.error_file_data)
    except (RuntimeError, OSError) as error:
        node = f" (node {options.node_rank})" if options.node_rank is not None else ""
        place = options.rdzv_endpoint or "localhost"
        return End(1, f"the node agent{node} could not run the ranks at {place}: {error}", "agent")


def wait_for_first_node(
    endpoint: str,
    *,
    limit: float = FIRST_NODE_SECONDS,
    pause: float = 0.5,
    addresses: Callable[[str], set[str]] = _addresses,
    listens: Callable[[str, int], bool] = _listens,
) -> bool:
    """Wait until the host at which the ranks meet can be found, and unless that is this one, listens there; False at the limit.

    The name of a pod is unknown in its first second, and then its address is known long before its image is there. Torch looks a name up once, and
    takes a host that it cannot find for another one, so that nobody would listen; and it waits a minute for one that does not.
    """
    host, _, port = endpoint.rpartition(":")
    until = time.monotonic() + limit
    while True:
        found = addresses(host)
        here = found & (addresses(socket.gethostname()) | LOOPBACK)
        if found and (here or listens(host, int(port))):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(pause)


def _first_failure(failures: dict[int, Any]) -> tuple[int, Any]:
    """The rank to blame with its failure: one that was killed or cut off from its store, since the others' broken connections only follow from it; else the
    earliest.

    `failures` also holds the ranks that the agent stopped afterwards: by SIGTERM, or by SIGKILL at the end of the grace.
    """
    ended_by_themselves = {rank: failure for rank, failure in failures.items() if not _was_stopped(failure)}
    candidates = ended_by_themselves or failures
    first_noticed = min(failure.timestamp for failure in candidates.values())
    before_the_grace_ends = first_noticed + max(1, _grace() - 1)
    ended_from_outside = {
        rank: failure
        for rank, failure in candidates.items()
        if (failure.exitcode < 0 or failure.exitcode == StoreUnavailable.exit_code)
        and failure.timestamp < before_the_grace_ends
    }
    return min((ended_from_outside or candidates).items(), key=lambda item: _time_of(item[1]))


def _was_stopped(failure: Any) -> bool:
    """Whether the rank only obeyed SIGTERM."""
    return failure.exitcode in (-signal.SIGTERM, 128 + signal.SIGTERM)


def _time_of(failure: Any) -> float:
    """When a rank failed, in seconds since 1970: by its own word, else when torchrun noticed it."""
    message = failure.error_file_data.get("message")
    if isinstance(message, dict):
        return float(message["extraInfo"].get("time", failure.timestamp))
    return float(failure.timestamp)


def _end_of_rank(rank: int, exit_code: int, error_data: dict[str, Any]) -> End:
    """What a rank's end means; `error_data` is what it wrote to its error file, if anything."""
    where = f"rank {rank}"
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        guess = ": probably out of memory" if name == "SIGKILL" else ""
        return End(128 - exit_code, f"killed by {name}{guess}", where)
    message = error_data.get("message")
    words = message.get("message") if isinstance(message, dict) else None
    return End(exit_code, words or f"ended with {exit_code} and left no message; its last lines are in the log", where)


def _stopped(number: int) -> End:
    return End(128 + int(number), f"stopped by {signal.Signals(number).name}", "agent")


def _stop_group(pid: int) -> None:
    """Ask a process and its children to end, and kill them after the grace."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
    killer = threading.Timer(_grace(), lambda: _kill_group(pid))
    killer.daemon = True
    killer.start()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _grace() -> int:
    return environment.shutdown_seconds(SHUTDOWN_SECONDS)


def _unique() -> str:
    return f"{os.getpid()}-{time.time_ns()}"


def _report(end: End, reasons: list[str], termination_log: Path) -> None:
    """Tell how the ranks ended, and why they were stopped: on standard error, to TorchX, and to the pod's status."""
    message = masked("; ".join([end.message, *reasons]))
    print(f"[agent] {end.where}: {message} (exit code {end.exit_code})", file=sys.stderr, flush=True)
    file = environment.error_file()
    if file:
        now = time.time()
        extra = {"where": end.where, "time": now, "timestamp": str(int(now)), "py_callstack": ""}
        body = {"message": {"message": message, "errorCode": end.exit_code, "extraInfo": extra}}
        file.write_text(json.dumps(body), encoding="utf-8")
    if termination_log.exists():
        termination_log.write_text(f"{end.where}: {message}"[:3500], encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
