"""Detection of boxes: what both detectors share."""
