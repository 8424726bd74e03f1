"""Figures of a study and the page that shows them."""

from maskless.report.assign_plot import assignment
from maskless.report.background_plot import BackgroundSample, background, sample_background
from maskless.report.comparison_plot import comparison
from maskless.report.curves import response_curves, training_curve
from maskless.report.explain_plot import explain
from maskless.report.figures import Drawn, draw_all
from maskless.report.gallery import gallery
from maskless.report.groups import describe_groups, telling_markers
from maskless.report.heatmap import bubble, heatmap
from maskless.report.page import write_report
from maskless.report.spillover_plot import SpilloverSample, sample_spillover, spillover
from maskless.report.style import save
from maskless.report.tissue import detection_overlay, tissue
from maskless.report.umap_plots import umap, umap_panels

__all__ = [
    "BackgroundSample",
    "Drawn",
    "SpilloverSample",
    "assignment",
    "background",
    "bubble",
    "comparison",
    "describe_groups",
    "detection_overlay",
    "draw_all",
    "explain",
    "gallery",
    "heatmap",
    "response_curves",
    "sample_background",
    "sample_spillover",
    "save",
    "spillover",
    "telling_markers",
    "tissue",
    "training_curve",
    "umap",
    "umap_panels",
    "write_report",
]
