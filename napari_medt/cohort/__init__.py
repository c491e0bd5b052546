"""Many images, one model: a list of cases, a record of what is done, and the work in processes of its own."""

from napari_medt.cohort.listing import Case, list_cases
from napari_medt.cohort.running import Outcome, run_cohort

__all__ = ["Case", "Outcome", "list_cases", "run_cohort"]
