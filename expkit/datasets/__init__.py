"""The data sources behind `expkit.data.load`, one file a source or a format."""
