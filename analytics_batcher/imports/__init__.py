"""Imports of files: rows become calls of a client, each once, and what becomes of each is known."""
