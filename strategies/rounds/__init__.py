"""Rounds, in the order of their parts: sent, open until the deadline, closed, and past while replies may still come."""
