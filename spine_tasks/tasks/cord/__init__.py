"""Cord segmentation by nnU-Net or a plain U-Net (PyTorch)."""
