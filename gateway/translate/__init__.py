"""Pure functions and small assemblers between the clients' shapes and the upstreams'."""
