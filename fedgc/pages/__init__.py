"""What pages have in common, those about a run and those of a report: their style, and text that is safe on them."""
