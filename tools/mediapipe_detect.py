"""Detections of MediaPipe's ObjectDetector on pictures, as JSON.

  python tools/mediapipe_detect.py --model=model_int8.tflite --input=pictures --output=found.json

Needs the packages mediapipe and absl-py, in an environment of their own: mediapipe's OpenCV
replaces the one of kerasvision. --input is a picture or a folder of pictures. The output is a
list with an entry for each picture, in the order of their names: "file"; "boxes", rows (ymin,
xmin, ymax, xmax) divided by the picture's height and width; "scores"; and "labels", the names of
the classes. MediaPipe cuts off the fractions of a box's origin and size in pixels; half a pixel
is added to each, so that the boxes are right on average.
"""

import json
import pathlib

import mediapipe
from absl import app, flags
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import vision

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, ".tflite file.", required=True)
flags.DEFINE_string("input", None, "Picture, or folder of pictures.", required=True)
flags.DEFINE_string("output", None, "JSON file to write.", required=True)
flags.DEFINE_float("score_threshold", 0.0, "Least score of a detection.")


def main(argv):
    del argv
    source = pathlib.Path(FLAGS.input)
    files = [source] if source.is_file() else sorted(source.iterdir())
    files = [file for file in files if file.suffix.lower() in (".png", ".jpg", ".jpeg")]
    options = vision.ObjectDetectorOptions(
        base_options=tasks.BaseOptions(model_asset_path=FLAGS.model),
        score_threshold=FLAGS.score_threshold,
    )
    rows = []
    with vision.ObjectDetector.create_from_options(options) as detector:
        for file in files:
            image = mediapipe.Image.create_from_file(str(file))
            row = {"file": file.name, "boxes": [], "scores": [], "labels": []}
            for detection in detector.detect(image).detections:
                box, category = detection.bounding_box, detection.categories[0]
                top, left = box.origin_y + 0.5, box.origin_x + 0.5
                bottom, right = top + box.height + 0.5, left + box.width + 0.5
                row["boxes"].append(
                    [
                        top / image.height,
                        left / image.width,
                        bottom / image.height,
                        right / image.width,
                    ]
                )
                row["scores"].append(category.score)
                row["labels"].append(category.category_name)
            rows.append(row)
    pathlib.Path(FLAGS.output).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    app.run(main)
