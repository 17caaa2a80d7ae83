"""How a run begins: by this strategy's own start, or under a strategy around it; anew, or where another ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fedgc.strategies.coded_run import CodedRun
from fedgc.strategies.coded_strategy import CodedStrategy
from fedgc.strategies.messages.arrays import check_finite
from fedgc.strategies.resuming import Journal
from fedgc.strategies.rounds.deadline_grid import DeadlineGrid
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result


class StartedStrategy(CodedStrategy):
    """A strategy that runs: it keeps its deadlines, in its own training loop or in another's."""

    resume: bool

    def start(  # noqa: PLR0917  (Flower's signature)
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run Flower's training loop with this strategy's deadline for training; `timeout` limits evaluation only.

        Raises
        ------
        ValueError
            If an initial array is not finite: no reply could be.
        CheckpointError
            If checkpoints cannot be written to their folder, another run has it, or what is there is not to be gone on
            from or cannot be.
        """
        check_finite(initial_arrays)
        self._run = self._begin(grid)
        assert self._run.grid is not None
        self._journal = journal = Journal(self.checkpoints, resume=self.resume)
        with journal.held():
            arrays = journal.begin(self, initial_arrays)
            rounds_left = max(num_rounds - journal.rounds_before, 0)
            self._run.resumed(journal.rounds_before, journal.rounds_before + rounds_left)
            if journal.rounds_before > 0:
                self.reporting.resume(self.history[self._run.first_report :])
            self.planning = replace(self.planning, rounds=self.state.rounds + rounds_left)
            self._expect_rounding(arrays)  # the summary tells what is predicted
            self._run.grid.expect(initial_arrays)
            with self._run.grid as timed:
                self._write_status()
                if journal.rounds_before == 0 or timed.one_at_a_time:
                    self._warm_up(arrays)
                if journal.clients_must_evaluate:
                    messages = self.configure_evaluate(0, arrays, evaluate_config or ConfigRecord(), timed)
                    self.aggregate_evaluate(0, timed.send_and_receive(messages, timeout=timeout))
                super().start(
                    grid=timed,
                    initial_arrays=arrays,
                    num_rounds=rounds_left,
                    timeout=timeout,
                    train_config=train_config,
                    evaluate_config=evaluate_config,
                    evaluate_fn=journal.noting(self, evaluate_fn),
                )
                return journal.result

    def deadline_grid(self, grid: Grid, initial_arrays: ArrayRecord | None = None) -> DeadlineGrid:
        """Return a grid that keeps this strategy's deadlines, to start a strategy around this one with.

        Flower's differential-privacy strategies, say. Their ``start`` would otherwise wait as long as its `timeout`
        says and let this strategy learn nothing of the clients' times; they pass over a round in which any client
        reports an error, divide by the length of an update, which is zero where no shard was done, and end the run
        where a reply cannot be read: they get none of these. Replies are decoded together, since a strategy around this
        one may change them first, so that rounds do not end early and the server needs memory for all. If the initial
        arrays are given, nodes are warmed up first as :meth:`start` does.

        Only the ``with`` block tells when the run is over, for the summary in the log and for reporters that have
        something to close; without one, that is when the next run of this strategy begins, if ever.

        Raises
        ------
        ValueError
            If clients are to round their sums, which are then no models, or an initial array is not finite.

        Notes
        -----
        Flower's strategies for differential privacy add noise with the deviation ``noise_multiplier C / n``: a client's
        part in the plain mean of n clients, each clipped to the norm C, is C / n. In the decoded aggregate that of a
        client is ``p C`` with ``p = sum |w_r| n_r / N`` over the coded updates r that it sends, with decoding weights
        w_r, n_r examples and N in all; and so is that of a shard, over the coded updates with it that count, whoever
        sent them. By so much the aggregate moves if the updates of that unit are replaced by zero, and by at most twice
        as much if by others, with FedAvg inside. A single one of several shards in a coded update is bounded by the
        latter alone. Each round reports the largest p as "fedgc-largest-part", and the log says once by how much it
        exceeds 1 / n.

        For a guarantee p must be bounded before the rounds, say by P, and `noise_multiplier` be multiplied by ``n P``.
        With ``decoder="fixed"`` and ``max_weight=W`` no weight exceeds W, so that ``P = W s`` for clients, where s is
        the largest number of examples of a client's shards over N, and ``P = h W s`` for shards with h holders: with
        equal shards in balanced blocks s is about h / n. (The default decoder adds more to its weights than a cap cuts
        off, if updates are alike, and learns how alike they are from updates.) All else that may depend on updates must
        not: give `shard_examples` and a :class:`fedgc.coherence.KnownCoherence`, and use no memory. Running statistics
        are divided by the sum of the weights, which has no bound from below, so the model must have none. Metrics, of
        clients and of rounds, are without noise, and who came is taken to be no secret.

        Examples
        --------
        >>> from fedgc.strategies import GradientCoding
        >>> from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping
        >>> coding = GradientCoding(num_shards=40, deadline=30.0)
        >>> private = DifferentialPrivacyServerSideFixedClipping(coding, 0.1, 1.0, num_sampled_clients=20)
        >>> def main(grid, context):
        ...     arrays = ArrayRecord()
        ...     with coding.deadline_grid(grid, arrays) as timed:
        ...         private.start(timed, arrays, num_rounds=3)
        """
        if self.quantiser is not None:
            budget = self.planning.bit_budget
            name, given = ("bits", self.quantiser.bits) if budget is None else ("bit_budget", budget)
            raise ValueError(
                f"{name} must be left out under a strategy around this one, which reads replies as models; got {given}"
            )
        if initial_arrays is not None:
            check_finite(initial_arrays)
        self._run = self._begin(grid, only_work=True)
        assert self._run.grid is not None
        self._write_status()
        if initial_arrays is not None:
            self._run.grid.expect(initial_arrays)
            self._warm_up(initial_arrays)
        return self._run.grid

    def _begin(self, grid: Grid, *, only_work: bool = False) -> CodedRun:
        self._run.end(complete=False)
        self._journal = Journal()

        def end(complete: bool) -> None:
            if complete:  # after an error replies may have come that nobody has looked into
                self._learn_if_passed_over()
            self._write_status()
            self.reporting.end_run(self.history[run.first_report :])

        run = CodedRun(
            grid,
            deadline=self.deadline.initial,
            early_end=self.early_end,
            only_work=only_work,
            on_end=end,
            before=self._run,
        )
        run.first_report = len(self.history)
        assert run.grid is not None
        self.planning = replace(self.planning, shared_clock=run.grid.shared_clock)
        return run
