"""What to expect of a round before it is run: who comes, when it ends, how far off the decoded update will be."""

from fedgc.forecast.rounds import Forecast, arrivals_by_deadline, forecast_round, work_of

__all__ = ["Forecast", "arrivals_by_deadline", "forecast_round", "work_of"]
