"""What every experiment here shares: data, training loop, claims and report."""
