"""Gradient penalties, explicit and implicit (Barrett & Dherin, 2020)."""

__all__: list[str] = []
