"""Why a habit is recommended: factors that are true of the score, and their wording in every language there is."""

from habitlab.explanations.factors import Factor, Outlook
from habitlab.explanations.reasons import as_table, explain, explain_list, item_factors, success_factors, summarise
from habitlab.explanations.wording import label, languages

__all__ = [
    "Factor",
    "Outlook",
    "as_table",
    "explain",
    "explain_list",
    "item_factors",
    "label",
    "languages",
    "success_factors",
    "summarise",
]
