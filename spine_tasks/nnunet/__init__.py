"""Spinal-cord masks by nnU-Net: BIDS data sets to its folders."""
