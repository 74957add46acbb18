"""What scoring leaves behind: results.json and .csv, examples as .parquet, and report.html."""

from report.output import write
from report.results import Results

__all__ = ["Results", "write"]
