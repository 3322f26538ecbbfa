"""Readers of image data and the phantom that needs none."""
