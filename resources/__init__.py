"""What ships with the program: the sample model, text to calibrate and evaluate on, help pages."""

from pathlib import Path

FOLDER = Path(__file__).parent
SAMPLE_MODEL = FOLDER / "sample-model"
CALIBRATION_TEXT = FOLDER / "text" / "calibration.txt"
EVALUATION_TEXT = FOLDER / "text" / "evaluation.txt"
