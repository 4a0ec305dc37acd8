"""The shapes clients send and receive; no framework in here."""
