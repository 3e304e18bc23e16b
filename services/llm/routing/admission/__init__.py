"""When a candidate may be asked: gates, slots over all replicas, probes, affinity."""
