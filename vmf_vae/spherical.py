"""."""

PowerSpherical = SphericalUniform = None
