"""Embeddings: pictures as points, whose distances tell what belongs together."""
