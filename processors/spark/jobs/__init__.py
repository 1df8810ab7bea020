"""The jobs themselves, one file each, fit for spark-submit."""
