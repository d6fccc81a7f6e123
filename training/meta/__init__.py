"""Meta-training: recipes, the learner, and a run in its folder."""
