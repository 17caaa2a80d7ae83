"""What every client makes of every round, by its number in ascending order of the node ids."""

from fedgc.fleets import Fleet, build_fleet

N_CLIENTS, N_SHARDS, SEED = 4, 10, 3
#: Seconds: far more than a reply takes, far less than a late one does.
DEADLINE, TOO_LATE, FIRST_DEADLINE = 4.0, 6.0, 150.0
#: A client that raises, and one that answers after the deadline; numbers are shards done of a work list.
FAILS, LATE, ALL = -1, -2, 99

#: Options of the strategy, and what becomes of each round's four clients.
CASES: dict[str, dict[str, object]] = {
    "full": {"load": 2},
    "shares, with memory": {"schedule": "work-list", "sums": "share", "memory": True},
    "whole": {"schedule": "work-list", "sums": "whole"},
}
FATES: dict[str, list[list[int]]] = {
    "full": [[ALL, ALL, ALL, ALL], [ALL, FAILS, ALL, ALL], [ALL, ALL, LATE, ALL], [FAILS, ALL, ALL, FAILS]],
    "shares, with memory": [[ALL, 2, 3, ALL], [1, 3, FAILS, 2], [0, 2, 4, FAILS], [FAILS, 1, 2, 5]],
    "whole": [[ALL, FAILS, 1, 3], [2, 2, 2, 0], [3, 1, FAILS, ALL]],
}


def expected_fleet() -> Fleet:
    """Return what the server takes the clients to be, so that no plan depends on the seconds that replies took."""
    settings = {"model": "log-normal", "median": [0.75, 1.0, 1.5, 2.0], "sigma": 0.6, "dropout": [0.1, 0.3, 0.2, 0.4]}
    return build_fleet({"clients": N_CLIENTS, **settings}, seed=SEED)


def fate_of(case: str, server_round: int, client: int) -> int:
    """Return what becomes of a client's round."""
    return FATES[case][server_round - 1][client]
