"""Faster R-CNN, made for healthy and sick discs."""
