"""Runs of the quickstart's app for the soaks: in the embedded runtime, and on a fleet; and what came of each round."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment_error import DeploymentError
from fleet import LoopbackFleet

from fedgc.checkpoint import CheckpointFolder
from fedgc.reliability import ReliabilityPosterior

APP = Path(__file__).parents[1] / "flower_app"
#: Seconds by which a round may end after its deadline, and points of accuracy that may be lost.
OVERSHOOT, POINTS = 0.5, 0.02
#: An undisturbed round may take so many seconds; a disturbed one gets its longest time, so much longer, and some more.
LONG, LONGER, MORE = 150.0, 1.3, 3.0
#: Seconds between the starts of a node that is refused. A minute in all, and each takes seconds of the processors that
#: all devices of a loopback fleet share.
RESTART = 20.0


@dataclass(frozen=True)
class Round:
    """What became of a round.

    Attributes
    ----------
    asked, came : list of int
        Partitions of the nodes that were asked, and of those whose reply counted.
    seconds, deadline : float
        How long it lasted, and might last.
    accuracy : float
        On the test set, afterwards.
    """

    asked: list[int]
    came: list[int]
    seconds: float
    deadline: float
    accuracy: float


@dataclass(frozen=True)
class Run:
    """A run on a fleet.

    Attributes
    ----------
    rounds : list of Round
        Its rounds.
    straggle_prob : dict of int to float
        What was learnt of each node, by partition: the probability that it misses the next deadline.
    """

    rounds: list[Round]
    straggle_prob: dict[int, float]

    @property
    def accuracy(self) -> float:
        """The final one."""
        return self.rounds[-1].accuracy

    @property
    def overshoot(self) -> float:
        """Seconds by which the round that ended last after its deadline did so."""
        return max(one.seconds - one.deadline for one in self.rounds)

    @property
    def next_deadline(self) -> float:
        """Deadline for rounds that are disturbed, after this one in which nobody was."""
        return round(LONGER * max(one.seconds for one in self.rounds) + MORE, 1)


def app_config(nodes: int, rounds: int) -> dict[str, Any]:
    """Return the run config of a run in which nobody straggles but who is disturbed."""
    return {
        "num-server-rounds": rounds,
        "num-clients": nodes,
        "min-available-nodes": 1,
        "num-shards": 2 * nodes,
        "deadline": LONG,
        "fleet": "lognormal",
        "seconds-per-second": 0.01,
    }


def embedded_accuracy(config: dict[str, Any]) -> float:
    """Return the app's final accuracy in the embedded runtime."""
    sys.path.insert(0, str(APP))
    from digits_app import client_app, server_app, task  # noqa: PLC0415

    from fedgc.simulation import run_virtual  # noqa: PLC0415

    defaults = {"load": 2, "decoder": "optimal-unbiased", "schedule": "full", "seed": 1, "checkpoints": ""}
    config, said = defaults | config, io.StringIO()
    with contextlib.redirect_stdout(said):
        run_virtual(server_app.app, client_app.app, task.fleet_of(config), run_config=config)
    return float(re.findall(r"test accuracy ([0-9.]+)", said.getvalue())[-1])


def on_the_fleet(fleet: LoopbackFleet, config: dict[str, Any], name: str, **options: Any) -> Run:  # noqa: ANN401
    """Run the app to its end; return what its last checkpoint and its output tell.

    Raises
    ------
    DeploymentError
        If it does not complete all rounds.
    """
    # All are up when a run begins; later some are not, or are not let in yet.
    partition = {fleet.node_id(node): node for node in range(len(fleet.nodes))}
    folder = fleet.logs / f"{name}-checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    text = " ".join(f"{key}={value!r}" for key, value in {**config, "checkpoints": str(folder)}.items())
    done = fleet.run(APP, text, **options)
    (fleet.logs / f"{name}.log").write_text(done.stdout)
    newest = CheckpointFolder(folder).newest()
    if done.returncode or newest is None or newest[0] < config["num-server-rounds"]:
        last = 0 if newest is None else newest[0]
        raise DeploymentError(
            f"the {name} run ends after {last} of {config['num-server-rounds']} rounds: {fleet.logs} tells why"
        )
    accuracy = [float(value) for value in re.findall(r"came, test accuracy ([0-9.]+), ended", done.stdout)]
    reports, rounds = newest[1]["run"]["history"], []
    for report, now in zip(reports, accuracy, strict=True):
        asked = [partition[node] for node in report["node_ids"]]
        came = [node for node, arrived in zip(asked, report["arrived"], strict=True) if arrived]
        rounds.append(Round(sorted(asked), sorted(came), report["seconds"], report["deadline"], now))
    posterior = ReliabilityPosterior.from_data(newest[1]["run"]["state"]["reliability"])
    ids = sorted(node for node in partition if node is not None)
    learnt = zip(ids, posterior.straggle_prob(ids).tolist(), strict=True)
    return Run(rounds, {partition[node]: value for node, value in sorted(learnt, key=lambda one: partition[one[0]])})


def print_rounds(disturbed: Run, undisturbed: Run, what: str, told: dict[int, str]) -> None:
    """Print a table of the rounds, with what happened in each, and what was learnt of each node."""
    print(f"\n{'round':>5} {what:>9} {'came':>7} {'seconds':>8} {'deadline':>9} {'accuracy':>9} {'undisturbed':>12}")
    for index, (one, other) in enumerate(zip(disturbed.rounds, undisturbed.rounds, strict=True), start=1):
        print(
            f"{index:>5} {told.get(index, ''):>9} {len(one.came):>2} of {len(one.asked)} {one.seconds:>8.2f} "
            f"{one.deadline:>9.1f} {one.accuracy:>9.3f} {other.accuracy:>12.3f}"
        )
    learnt = ", ".join(f"node {node} {value:.2f}" for node, value in disturbed.straggle_prob.items())
    print(f"\nstraggle probability: {learnt}")
    print(f"latest end of a round: {disturbed.overshoot:+.3f} s after its deadline")


def requirements(run: Run, undisturbed: Run, embedded: float) -> dict[str, bool]:
    """Return what a run must keep however it is disturbed, and whether it does."""
    return {
        f"rounds end by their deadline and {OVERSHOOT} s": run.overshoot <= OVERSHOOT,
        "somebody came in every round": all(one.came for one in run.rounds),
        f"accuracy within {POINTS} of the undisturbed run's": undisturbed.accuracy - run.accuracy <= POINTS,
        f"undisturbed accuracy within {POINTS} of the embedded runtime's": abs(undisturbed.accuracy - embedded)
        <= POINTS,
    }
