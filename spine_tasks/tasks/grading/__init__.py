"""Grading of levels from crops of images (PyTorch)."""
