"""Detection of boxes with transformers."""
