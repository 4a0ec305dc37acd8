"""The routes of ``/v1``: parse, call the relay, respond."""
