"""What a distilled network is taught after its distillation: motions, an even spread, words."""
