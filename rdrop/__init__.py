"""rdrop."""
