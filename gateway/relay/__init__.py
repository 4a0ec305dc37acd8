"""Use cases: the only code that sees both the pool and the upstreams."""
