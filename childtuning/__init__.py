"""childtuning."""
