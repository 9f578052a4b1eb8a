"""What the barrier costs, as ratios within one run."""
