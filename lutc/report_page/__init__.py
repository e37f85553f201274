"""`lutc compile --report PAGE.html`: what became of a model, as one self-contained page.

The page needs no script and no network, prints, works in light and dark and on a phone. It is a function of its
arguments: the same report and facts give the same bytes.
"""

from lutc.report_page.facts import Facts, Times, machine, versions
from lutc.report_page.measure import measure
from lutc.report_page.page import render
from lutc.report_page.write import check_destination, write_page

__all__ = ["Facts", "Times", "check_destination", "machine", "measure", "render", "versions", "write_page"]
