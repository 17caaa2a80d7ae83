"""The commands of ``fedgc``, a file each.

Nothing here imports Flower, torch or matplotlib before a command has begun: they take seconds, for which a wrong key,
or ``--help``, should not have to wait.
"""

from fedgc.commands.analyze import analyze
from fedgc.commands.plan import plan
from fedgc.commands.report import report
from fedgc.commands.run import run

__all__ = ["analyze", "plan", "report", "run"]
