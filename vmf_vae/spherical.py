"""."""
PowerSpherical = SphericalUniform = None
