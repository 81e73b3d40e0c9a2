"""Item and user profiles: prompts, back-ends that answer them, and the cache of answers."""
