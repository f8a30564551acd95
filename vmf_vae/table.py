"""."""

FixedConcentrationSampler = None
