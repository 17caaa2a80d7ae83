"""An app whose models can be compared bit for bit between runtimes, and that tells what became of every round."""
