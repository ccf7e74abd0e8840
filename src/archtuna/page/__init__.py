"""The report of a run: one HTML file that opens from a disk, the same as JSON, and its charts as pictures.

It answers first which network to take. Everything else in it is there to check that answer.
"""

from archtuna.page.write import Written, write_report

__all__ = ["Written", "write_report"]
