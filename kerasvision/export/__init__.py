"""Exports of trained models."""

from kerasvision.export.formats import export_all
from kerasvision.export.litert import export_litert
from kerasvision.export.litert_detector import LiteRTDetector
from kerasvision.export.saved_model import SavedModelDetector, export_saved_model
