"""Statistics of scores: persons are the n of every mean, interval and test."""
