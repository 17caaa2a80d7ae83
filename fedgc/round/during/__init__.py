"""During the round: what comes is folded into running sums and compared with its copies, and then let go."""
