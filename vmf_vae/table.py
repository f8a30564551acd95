"""."""
FixedConcentrationSampler = None
