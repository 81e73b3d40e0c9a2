"""
Ranking metrics, full-ranking evaluation, what every model has to beat, and models side by side.

Rankings themselves belong to `recmodels.ranking`, drawing to `recmodels.reporting`.
"""
