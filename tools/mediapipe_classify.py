"""What MediaPipe's ImageClassifier makes of pictures, as JSON.

  python tools/mediapipe_classify.py --model=model_int8.tflite --input=pictures --output=seen.json

Needs the packages mediapipe and absl-py, in an environment of their own: mediapipe's OpenCV
replaces the one of kerasvision. --input is a picture or a folder of pictures. The output is a
list with an entry for each picture, in the order of their names: "file"; "labels", the names of the
classes from the likeliest on; and "scores".
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


def classify(files):
    options = vision.ImageClassifierOptions(
        base_options=tasks.BaseOptions(model_asset_path=FLAGS.model)
    )
    rows = []
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for file in files:
            result = classifier.classify(mediapipe.Image.create_from_file(str(file)))
            categories = result.classifications[0].categories
            rows.append(
                {
                    "file": file.name,
                    "labels": [category.category_name for category in categories],
                    "scores": [category.score for category in categories],
                }
            )
    return rows


def main(argv):
    del argv
    source = pathlib.Path(FLAGS.input)
    files = [source] if source.is_file() else sorted(source.iterdir())
    files = [file for file in files if file.suffix.lower() in (".png", ".jpg", ".jpeg")]
    pathlib.Path(FLAGS.output).write_text(json.dumps(classify(files), indent=1))


if __name__ == "__main__":
    app.run(main)
