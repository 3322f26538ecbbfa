"""Boxes drawn in other tools, made into COCO folders: one module a format, then one way for all."""
