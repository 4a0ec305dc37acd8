"""Pictures and videos on disk: names, checks, the cache, links to it. Values come as arguments."""
