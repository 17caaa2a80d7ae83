"""Before the round: who is to do what until when, from past rounds only."""
