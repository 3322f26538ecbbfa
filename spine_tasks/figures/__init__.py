"""Figures as files, and pictures with what was found drawn on them."""
