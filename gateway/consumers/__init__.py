"""WebSockets: who may open one, what is said on it, and how long it lives."""
