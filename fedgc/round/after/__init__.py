"""After the round: what came is decoded, and learnt from."""
