"""The paper's comparisons, trained again."""
