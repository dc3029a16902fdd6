"""From ranks to a report: targets, metrics, confidence, slices, baselines and protocols."""
