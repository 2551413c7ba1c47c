"""What MediaPipe's ImageSegmenter makes of pictures, as JSON.

  python tools/mediapipe_segment.py --model=model_int8.tflite --input=pictures --output=seen.json

Needs the packages mediapipe and absl-py, in an environment of their own: mediapipe's OpenCV
replaces the one of kerasvision. --input is a picture or a folder of pictures. The output is a
list with an entry for each picture, in the order of their names: "file"; "labels", the names of
the classes; "mask", for each row of pixels the numbers of their classes; and with --probabilities
"probabilities", for each row and pixel those of the classes. MediaPipe enlarges what the model
says to the size of the picture: probabilities bilinearly, the mask from the nearest pixel.
"""

import json
import pathlib

import mediapipe
import numpy as np
from absl import app, flags
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import vision

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, ".tflite file.", required=True)
flags.DEFINE_string("input", None, "Picture, or folder of pictures.", required=True)
flags.DEFINE_string("output", None, "JSON file to write.", required=True)
flags.DEFINE_bool("probabilities", False, "Also write the probabilities of all classes.")


def main(argv):
    del argv
    source = pathlib.Path(FLAGS.input)
    files = [source] if source.is_file() else sorted(source.iterdir())
    files = [file for file in files if file.suffix.lower() in (".png", ".jpg", ".jpeg")]
    options = vision.ImageSegmenterOptions(
        base_options=tasks.BaseOptions(model_asset_path=FLAGS.model),
        output_confidence_masks=FLAGS.probabilities,
        output_category_mask=True,
    )
    rows = []
    with vision.ImageSegmenter.create_from_options(options) as segmenter:
        for file in files:
            result = segmenter.segment(mediapipe.Image.create_from_file(str(file)))
            mask = result.category_mask.numpy_view()[:, :, 0]
            row = {"file": file.name, "labels": segmenter.labels, "mask": mask.tolist()}
            if FLAGS.probabilities:
                masks = [mask.numpy_view() for mask in result.confidence_masks]
                row["probabilities"] = np.concatenate(masks, axis=-1).tolist()
            rows.append(row)
    pathlib.Path(FLAGS.output).write_text(json.dumps(rows))


if __name__ == "__main__":
    app.run(main)
