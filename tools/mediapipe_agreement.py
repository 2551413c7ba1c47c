"""Compares what MediaPipe sees through an exported .tflite with what the Keras model sees.

  python tools/mediapipe_agreement.py --model=runs/bccd --dataset=voc:BCCD --split=val \
    --mediapipe_python=mediapipe_env/bin/python

--model is a run folder with the exports. MediaPipe needs an environment of its own, because its
OpenCV replaces the one of kerasvision. Both get the same pictures, already of the model's size, as
each resizes in its own way. A detection of Keras above --min_score is matched by one of MediaPipe
of the same class with an IoU of at least 0.9 and a score at most 0.05 away.
"""

import json
import pathlib
import subprocess
import tempfile

from absl import flags

from kerasvision.training import app

flags.DEFINE_string("model", None, "Run folder with the exports.", required=True)
flags.DEFINE_string("precision", "float32", "Which export: float32, float16 or int8.")
flags.DEFINE_string("dataset", None, app.DETECTION_DATASETS, required=True)
flags.DEFINE_string("split", "val", "Split whose first pictures are compared.")
flags.DEFINE_integer("pictures", 50, "How many pictures.", lower_bound=1)
flags.DEFINE_float("min_score", 0.5, "Least score of the detections that are compared.")
flags.DEFINE_string("mediapipe_python", None, "Python with mediapipe and absl-py.", required=True)


def main(argv):
    del argv
    config = flags.FLAGS
    app.import_tensorflow()
    import cv2
    import numpy as np
    from keras import ops

    from kerasvision import data
    from kerasvision.detection import load_detector
    from kerasvision.ops import boxes as box_ops

    folder = pathlib.Path(config.model)
    model = load_detector(folder)
    dataset = data.load(config.dataset, config.split)
    batches = data.batches(dataset, model.image_shape, 1).take(config.pictures)
    images = np.concatenate([batch["images"] for batch in batches])
    with tempfile.TemporaryDirectory() as temporary:
        pictures, output = pathlib.Path(temporary, "in"), pathlib.Path(temporary, "out.json")
        pictures.mkdir()
        for i, image in enumerate(images):
            cv2.imwrite(str(pictures / f"{i:06d}.png"), image[:, :, ::-1])
        command = [
            config.mediapipe_python,
            str(pathlib.Path(__file__).with_name("mediapipe_detect.py")),
            f"--model={folder / f'model_{config.precision}.tflite'}",
            f"--input={pictures}",
            f"--output={output}",
        ]
        subprocess.run(command, check=True, capture_output=True)
        found = json.loads(output.read_text())

    compared = matched = 0
    least_iou, largest_difference = 1.0, 0.0
    for image, row in zip(images, found):
        expected = {name: value[0] for name, value in model.predict_on_batch(image[None]).items()}
        for k in np.flatnonzero(expected["scores"] > config.min_score):
            compared += 1
            name = model.class_names[expected["labels"][k]]
            same = [i for i, label in enumerate(row["labels"]) if label == name]
            if not same:
                continue
            candidates = np.array(row["boxes"], "float32")[same]
            iou = ops.convert_to_numpy(box_ops.iou(expected["boxes"][k][None], candidates))[0]
            difference = abs(row["scores"][same[iou.argmax()]] - expected["scores"][k])
            matched += int(iou.max() >= 0.9 and difference <= 0.05)
            least_iou = min(least_iou, float(iou.max()))
            largest_difference = max(largest_difference, float(difference))
    print(
        f"{len(images)} pictures, {compared} detections above {config.min_score}: {matched} "
        f"matched; least IoU {least_iou:.4f}, largest difference of scores {largest_difference:.4f}"
    )


if __name__ == "__main__":
    app.run_main(main, __doc__)
