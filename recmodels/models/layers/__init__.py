"""What several models are built of. What one model alone needs stays in its file."""
