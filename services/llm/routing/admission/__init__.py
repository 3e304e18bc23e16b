"""Admission of requests to a candidate: gates, slots over all replicas, probes, affinity."""
