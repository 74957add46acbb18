"""What scoring leaves behind: results.json and .csv, examples as .parquet, and report.html."""

from report.results import Results, write

__all__ = ["Results", "write"]
