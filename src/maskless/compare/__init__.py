"""A study beside reference labels, and every control beside the study."""

from maskless.compare.compare import compare_study

__all__ = ["compare_study"]
