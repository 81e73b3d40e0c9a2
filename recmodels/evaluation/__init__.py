"""Ranking metrics, the full-ranking evaluator and the leaderboard."""
