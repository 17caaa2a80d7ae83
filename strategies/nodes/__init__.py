"""Nodes: who is there, who joins and comes back, who is at work, who is not asked for a while."""
