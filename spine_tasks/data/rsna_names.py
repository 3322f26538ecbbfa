"""What the RSNA 2024 challenge on lumbar spines calls things."""

CANAL = "spinal_canal_stenosis"
CONDITIONS = (CANAL, "neural_foraminal_narrowing", "subarticular_stenosis")
GRADES = ("Normal/Mild", "Moderate", "Severe")
LEVELS = ("L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1")
# Conditions with the side they are of, where they have one.
SIDED = (
    (CANAL, ""),
    *((condition, side) for condition in CONDITIONS[1:] for side in ("left", "right")),
)
