"""The page as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from fedgc.strategies.reporting.page.chart import Curve, chart
from fedgc.strategies.reporting.page.tables import (
    MOST_ROWS,
    block_table,
    client_table,
    least_reliable,
    slowest,
    table,
)
from fedgc.strategies.reporting.status import RISK, Evaluation, RunStatus, Waiting

from fedgc.pages.style import STYLE
from fedgc.pages.text import UNKNOWN, count, duration, number, percent, safe

#: What the page begins with, by which it is known again.
GENERATOR = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="fedgc status">'
)
#: A browser that shows the page reads it anew after so many seconds, as long as the run goes on.
_REFRESH = 10
#: So many clients of each kind are in the report at the end.
_REPORTED = 10
#: Bounds between which clients are counted by their probability to straggle.
_BANDS = (0.05, 0.2, 0.5)


def status_html(status: RunStatus, data_name: str) -> str:
    """Return the page that shows what is known of a run; after its end, the report on it.

    Parameters
    ----------
    status : RunStatus
        What is known.
    data_name : str
        Name of the file beside it that holds all of that.
    """
    title = f"{_progress(status)}, {status.phase}"
    refresh = "" if status.is_over else f'<meta http-equiv="refresh" content="{_REFRESH}">'
    # Nothing in it comes from elsewhere, and nothing runs: whatever a client may send, the browser is told so.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'{GENERATOR}<meta name="viewport" content="width=device-width,initial-scale=1">{refresh}'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{safe(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(_sections(status, data_name)) + "\n</body></html>\n"
    )


def _sections(status: RunStatus, data_name: str) -> Iterator[str]:
    yield _head(status)
    yield f'<div class="tiles">{"".join(_tiles(status))}</div>'
    if status.rounds:
        yield f'<div class="charts">{"".join(_charts(status))}</div>'
    if status.is_over and status.rounds:
        yield f"<h2>Totals</h2>{_totals(status)}"
        yield f"<h2>Least reliable</h2>{client_table(least_reliable(status.clients, _REPORTED))}"
        yield f"<h2>Slowest</h2>{client_table(slowest(status.clients, _REPORTED))}"
    yield from _blocks(status, data_name)
    yield from _clients(status, data_name)


def _progress(status: RunStatus) -> str:
    if status.rounds_planned is None:
        return count(status.rounds_done, "round")
    return f"{status.rounds_done} of {count(status.rounds_planned, 'round')}"


def _head(status: RunStatus) -> str:
    bar = ""
    if status.rounds_planned:
        bar = f'<progress value="{status.rounds_done}" max="{status.rounds_planned}"></progress>'
    told = [f"Written {status.written:%Y-%m-%d %H:%M:%S} UTC"]
    if not status.is_over:
        told[-1] += ", and again before and after every round; if it grows older than rounds take, the run is gone"
    if status.waiting is not None:
        told.append(_waiting(status.waiting, status.written))
    if status.round_open is not None:
        told.append(f"Round {status.round_open} is under way")
    if status.seconds is not None:
        left = f", about {duration(status.seconds_left)} left" if status.seconds_left is not None else ""
        told.append(f"{duration(status.seconds)} since the first round was sent{left}")
    told.append(f"Rounds: {duration(status.seconds_in_rounds)} in all; deadline {duration(status.deadline)}")
    held = f"{count(status.n_shards, 'shard')} held {status.load} times"
    plan = f"{held}, schedule {status.schedule}, decoder {status.decoder}"
    return (
        f'<p class="phase {status.phase}">{status.phase}</p><h1>{_progress(status)}</h1>{bar}'
        f'<p class="note">{". ".join(told)}.</p><p class="note">{safe(plan)}.</p>'
    )


def _waiting(waiting: Waiting, now: datetime) -> str:
    since = now - timedelta(seconds=waiting.seconds)
    return (
        f"Waiting since {since:%Y-%m-%d %H:%M:%S} UTC, for {duration(waiting.seconds)}: {waiting.there:,} of at least "
        f"{waiting.needed:,} {safe(waiting.what)} are there; for up to {duration(waiting.seconds_left)} more"
    )


def _tile(name: str, value: str, remark: str) -> str:
    return f'<div class="tile"><span>{name}</span><b>{value}</b><small>{remark}</small></div>'


def _tiles(status: RunStatus) -> Iterator[str]:
    if status.rounds:
        last = {name: values[-1] for name, values in status.numbers.items()}
        came = f"{number(last['fedgc-arrived'])} of {number(last['fedgc-asked'])}"
        expected = f"{number(last['fedgc-arrived-predicted'])} expected by the deadline"
        yield _tile("Clients that came, last round", came, expected)
        of = "of the model, only the sum was seen; " if status.sum_only else ""
        error = f"{of}{number(status.error_predicted)} predicted; last round {number(last['fedgc-error-observed'])}"
        yield _tile("Residual error, mean", number(status.error_observed), error)
    if status.blocks:
        risky = sum(block.at_risk for block in status.blocks)
        remark = (
            f"more than {percent(RISK)} likely to send nothing in {'this' if status.round_open else 'the next'} round"
        )
        yield _tile("Blocks at risk", f"{risky:,} of {len(status.blocks):,}", remark)
    if status.clients:
        likely = sum(client.straggle_prob > 0.5 for client in status.clients)
        never = sum(client.last_seen is None for client in status.clients)
        aside = sum(client.set_aside_until is not None for client in status.clients)
        remark = f"{never:,} never seen, {aside:,} set aside"
        yield _tile("Likely stragglers", f"{likely:,} of {len(status.clients):,}", remark)
    for side, found in (("clients", status.clients_evaluation), ("server", status.server_evaluation)):
        if found is not None:
            yield _evaluation(side, found)


def _evaluation(side: str, found: Evaluation) -> str:
    """Return the accuracy, if there is one, or else the first metric in large, and the others below."""
    names = sorted(found.metrics, key=lambda name: "accuracy" not in name)[:6]
    first, *others = [f"{safe(name, 24)} {number(found.metrics[name])}" for name in names] or [UNKNOWN]
    return _tile(f"Evaluation by {side}", first, ", ".join([f"round {found.server_round}", *others]))


def _charts(status: RunStatus) -> Iterator[str]:
    numbers = status.numbers
    errors = (
        Curve("observed", "seen", numbers["fedgc-error-observed"]),
        Curve("predicted", "expected", numbers["fedgc-error-predicted"]),
    )
    arrivals = (
        Curve("asked", "limit", numbers["fedgc-asked"]),
        Curve("came", "seen", numbers["fedgc-arrived"]),
        Curve("expected", "expected", numbers["fedgc-arrived-predicted"]),
    )
    yield chart("Residual error", errors, status.rounds)
    yield chart("Clients", arrivals, status.rounds)


def _totals(status: RunStatus) -> str:
    total, done = status.total, max(status.rounds_done, 1)
    seen = total("fedgc-shards-done") + total("fedgc-shards-late")
    wasted = sum(
        share * (in_time + late)
        for share, in_time, late in zip(
            *(status.numbers[f"fedgc-{name}"] for name in ("wasted", "shards-done", "shards-late")), strict=True
        )
        if share is not None and in_time is not None and late is not None
    )
    empty = sum(came == 0 for came in status.numbers["fedgc-arrived"])
    rows = {
        "Rounds": f"{_progress(status)}, {empty:,} of them without any arrival",
        "Time": f"{duration(status.seconds_in_rounds)}, {duration(status.seconds_in_rounds / done)} a round",
        "Clients that came": f"{total('fedgc-arrived'):,.0f} of {total('fedgc-asked'):,.0f} times "
        f"({total('fedgc-arrived-predicted'):,.1f} expected)",
        "Blocks recovered": f"{total('fedgc-blocks-recovered'):,.0f} of {total('fedgc-blocks'):,.0f} times",
        "Residual error": f"{number(status.error_observed)} observed, {number(status.error_predicted)} predicted",
        "Shard updates": f"{seen:,.0f} came, {wasted:,.0f} of them not needed",
        "Late replies": f"{total('fedgc-late'):,.0f}",
        "Replies left out": f"{total('fedgc-rejected'):,.0f}",
        "Disagreements": f"{total('fedgc-disagreements'):,.0f}",
    }
    return table(("What", "Over the run"), rows.items())


def _blocks(status: RunStatus, data_name: str) -> Iterator[str]:
    risky = [block for block in status.blocks if block.at_risk]
    if risky:
        some = f"; the {MOST_ROWS} worst, all in {safe(data_name)}" if len(risky) > MOST_ROWS else ""
        yield f"<h2>Blocks at risk ({len(risky):,} of {len(status.blocks):,}{some})</h2>{block_table(risky)}"


def _clients(status: RunStatus, data_name: str) -> Iterator[str]:
    clients = status.clients
    if not clients:
        return
    some = f"the {MOST_ROWS} least reliable of {len(clients):,}; all in {safe(data_name)}"
    head = f"Clients ({some if len(clients) > MOST_ROWS else f'{len(clients)}, least reliable first'})"
    shown = client_table(least_reliable(clients))
    below = [sum(client.straggle_prob <= bound for client in clients) for bound in _BANDS]
    told = [f"{n - less:,} up to {percent(bound)}" for less, n, bound in zip((0, *below), below, _BANDS, strict=False)]
    counts = ", ".join([*told, f"{len(clients) - below[-1]:,} above"])
    note = f'<p class="note">By their probability to send nothing by the deadline: {counts}.</p>'
    if status.is_over:
        yield f"<details><summary>{head}</summary>{note}{shown}</details>"
    else:
        yield f"<h2>{head}</h2>{note}{shown}"
