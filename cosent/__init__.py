"""CoSENT: a ranking loss for sentence embeddings (Su 2022), thresholds, matching."""
