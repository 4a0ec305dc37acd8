"""The record of requests: written in batches, rolled up, pruned, and asked by the operator."""
