"""Finds objects in a picture, a folder of pictures or a video.

  python apps/detect.py --model=runs/quickstart --input=holiday.jpg
  python apps/detect.py --model=runs/quickstart/model_float16.tflite --input=film.mp4

--model is a run folder, a .keras file, a SavedModel folder or a .tflite file. The folder
--workdir gets each picture (or the video) with the objects drawn in, and detections.json in
COCO's format: images, categories, and annotations with a score, the box in pixels, and, if the
detector finds them, the mask as run lengths and the keypoints as x, y, probability.
"""

import itertools
import pathlib
import sys

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder, .keras file, SavedModel folder or .tflite file.")
flags.DEFINE_string("input", None, "A picture, a folder of pictures, or a video.")
flags.DEFINE_string("workdir", "runs/detect", "Folder for the results.")
flags.DEFINE_float("min_score", 0.4, "Leave out what scores lower.", 0.0, 1.0)
flags.DEFINE_integer("batch_size", 8, "Pictures in a step.", lower_bound=1)


def run(config):
    """Detects, draws and writes; `config` has the flags as attributes."""
    for name in ("model", "input"):
        if getattr(config, name) is None:
            raise run_folder.RunError(f"--{name}: is needed; received: nothing")
    source = pathlib.Path(config.input)
    files = app.find_pictures(source)
    workdir = run_folder.make_folder(config.workdir, space_needed=10e6)
    import cv2

    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import drawing
    from kerasvision.data import pictures
    from kerasvision.detection import load_detector
    from kerasvision.metrics.coco import area_of, coco_results

    detector = load_detector(config.model)
    input_height, input_width, _ = detector.image_shape
    result = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(detector.class_names)],
    }

    unreadable = []
    bar_mode = int(sys.stdout.isatty())
    if files[0].suffix.lower() in app.VIDEOS:
        video = cv2.VideoCapture(str(source))
        size = [int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        drawn_video = cv2.VideoWriter(
            str(workdir / f"{source.stem}.mp4"),
            cv2.VideoWriter_fourcc(*"mp4v"),
            video.get(cv2.CAP_PROP_FPS) or 25.0,
            size,
        )
        frames = pictures.read_frames(video, source.stem)
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        bar = keras.utils.Progbar(count or None, verbose=bar_mode)
    else:
        drawn_video = None
        frames = pictures.read_files(files, unreadable)
        bar = keras.utils.Progbar(len(files), verbose=bar_mode)

    while batch := list(itertools.islice(frames, config.batch_size)):
        inputs = [
            cv2.resize(picture, (input_width, input_height), interpolation=cv2.INTER_AREA)
            for _, picture in batch
        ]
        found = detector.predict_on_batch(np.stack(inputs))
        for i, (name, picture) in enumerate(batch):
            height, width = picture.shape[:2]
            image = {"id": len(result["images"]), "file_name": name}
            result["images"].append({**image, "height": height, "width": width})
            kept = found["scores"][i] >= config.min_score
            detections = {key: found[key][i][kept] for key in found if key != "count"}
            drawn = drawing.draw_boxes(picture, class_names=detector.class_names, **detections)
            rows = coco_results(
                {key: values[None] for key, values in detections.items()},
                [image["id"]],
                {**result, "images": result["images"][-1:]},
            )
            for row in rows:
                area = area_of(row, "segm" if "segmentation" in row else "bbox")
                row.update(id=len(result["annotations"]), area=area, iscrowd=0)
                result["annotations"].append(row)
            drawn = np.ascontiguousarray(drawn[:, :, ::-1])
            if drawn_video is not None:
                drawn_video.write(drawn)
            else:
                # OpenCV reads GIF but not all of its versions write it.
                drawn_name = f"{name}.png" if name.lower().endswith(".gif") else name
                cv2.imwrite(str(workdir / drawn_name), drawn)
            bar.add(1)

    if bar_mode:
        print()
    for line in unreadable:
        print(line)
    if drawn_video is not None:
        drawn_video.release()
    if not result["images"]:
        raise run_folder.RunError(f"--input={source}: nothing in it could be read")
    run_folder.write_json(workdir / "detections.json", result)
    print(
        f"{len(result['annotations'])} objects in {len(result['images'])} pictures; "
        f"drawings and detections.json are in {workdir}"
    )
    return result


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
