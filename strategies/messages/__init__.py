"""What is in messages: replies and their limits, arrays without copies, metrics."""
