"""Names the faces (or things) in pictures by a gallery of known ones.

  python apps/recognize.py --model=runs/faces --enrol=PEOPLE --gallery=known.npz
  python apps/recognize.py --model=runs/faces --gallery=known.npz --input=PARTY --detector=haar
  python apps/recognize.py --gallery=known.npz --remove=ann
  python apps/recognize.py --model=runs/faces --enrol=PEOPLE --input=holiday.jpg

--model is a run folder of train_facenet, or a .keras file. --enrol has a folder for each person,
with pictures of this person alone; it adds to the --gallery, if there is one already. With
--detector faces are found and brought upright, both to enrol and to be named; without, each picture
is taken for a face. Whoever is farther from all known pictures than --threshold is unknown. The
folder --workdir gets each picture of --input as NAME.png, with names and distances drawn;
faces.json, a row for each face; and sheet.png, faces beside the nearest known pictures.
"""

import pathlib
import sys

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder of train_facenet, or .keras file.")
flags.DEFINE_string("gallery", None, "File of known persons, .npz; made where there is none.")
flags.DEFINE_string("enrol", None, "Folder with a folder of pictures for each person.")
flags.DEFINE_list("remove", None, "Names of persons to be forgotten.")
flags.DEFINE_string("input", None, "A picture, or a folder of pictures, to be named.")
flags.DEFINE_string("workdir", "runs/recognize", "Folder for the results.")
flags.DEFINE_enum(
    "detector", "none", ["none", "haar", "yunet"], "How faces are found; see embedding/faces.py."
)
flags.DEFINE_string("detector_file", None, "YuNet's ONNX file, or a cascade.")
flags.DEFINE_integer("least_side", 24, "Of a face, in pixels; smaller ones are passed over.", 8)
flags.DEFINE_enum("metric", "euclidean", ["euclidean", "cosine"], "Of a new gallery.")
flags.DEFINE_float(
    "threshold", None, "Largest distance of one person's pictures. Default: the gallery's; of a "
    "new one where the run's judges were mistaken equally often both ways.", 0.0,
)  # fmt: skip
flags.DEFINE_bool("approximate", False, "Search by faiss's HNSW, for very large galleries.")
flags.DEFINE_integer("batch_size", 32, "Faces in a step.", lower_bound=1)

SHEET_FACES = 30
LEAST_DRAWN = 320  # pixels of a drawing's larger side, at least


def run(config):
    """Enrols, names, draws and writes; `config` has the flags as attributes."""
    if not (config.enrol or config.remove or config.input):
        raise run_folder.RunError("--enrol, --remove or --input: one is needed; received: none")
    if config.remove and not config.gallery:
        raise run_folder.RunError("--remove: needs --gallery; received: nothing")
    if (config.enrol or config.input) and not config.model:
        raise run_folder.RunError("--model: is needed; received: nothing")
    files = app.find_pictures(config.input) if config.input else []
    app.import_tensorflow()
    from kerasvision.embedding import FaceDetector, Gallery, fingerprint, load_embedding

    gallery = None
    if config.gallery and pathlib.Path(config.gallery).exists():
        gallery = Gallery.load(config.gallery)
    elif config.remove or not config.enrol:
        raise run_folder.RunError(
            f"--gallery: must be there, or --enrol tell who is to be known; received: "
            f"{config.gallery or 'nothing'}"
        )
    for name in config.remove or ():
        print(f"{name}: {gallery.remove(name)} pictures removed")
    if config.model:
        model = load_embedding(config.model)
        detector = FaceDetector(config.detector, config.detector_file, config.least_side)
        identity = fingerprint(model.embedder)
        if gallery is None:
            threshold = threshold_of(config)
            dimension = model.embedder.output_shape[-1]
            gallery = Gallery(identity, dimension, config.metric, threshold)
        gallery.check_model(identity)
    if config.enrol:
        enrol(config, model, detector, gallery)
    if config.gallery and (config.enrol or config.remove):
        gallery.save(config.gallery)
        print(f"{config.gallery}: {len(gallery.names)} persons, {len(gallery)} pictures")
    if not files:
        return gallery
    return recognize(config, model, detector, gallery, files)


def threshold_of(config):
    """The threshold of a new gallery: the flag's, or what the run's evaluation found."""
    import json

    if config.threshold is not None:
        return config.threshold
    path = pathlib.Path(config.model, "metrics.json")
    if not path.is_file():
        raise run_folder.RunError(
            f"--threshold: is needed with a --model that is no run folder; received: {config.model}"
        )
    distance = json.loads(path.read_text()).get("threshold")
    if distance is None:
        raise run_folder.RunError(f"--threshold: is needed; {path} has none")
    # Of points on the unit sphere, 1 - cos is half of the square of the distance.
    return distance**2 / 2 if config.metric == "cosine" else distance


def embed(model, crops, batch_size):
    """Embeddings (N, D) of pictures of the model's size."""
    import numpy as np

    parts = [crops[i : i + batch_size] for i in range(0, len(crops), batch_size)]
    return np.concatenate([model.embedder.predict_on_batch(np.stack(part)) for part in parts])


def enrol(config, model, detector, gallery):
    """Adds all that --enrol has to the gallery; what can't be used is told, a line each."""
    import keras

    from kerasvision.data import pictures
    from kerasvision.embedding.faces import align, the_face

    root = pathlib.Path(config.enrol)
    folders = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    if not folders:
        raise run_folder.RunError(
            f"--enrol={root}: must have a folder of pictures for each person; received: none"
        )
    left_out, added = [], 0
    bar_mode = int(sys.stdout.isatty())
    bar = keras.utils.Progbar(len(folders), verbose=bar_mode)
    for folder in folders:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in app.PICTURES)
        crops, sources = [], []
        for name, picture in pictures.read_files(files, left_out):
            try:
                face = the_face(detector(picture), folder / name)
            except ValueError as error:
                left_out.append(f"{error}; left out")
                continue
            crops.append(align(picture, face, model.image_shape[:2]))
            sources.append(str(folder / name))
        if not crops:
            left_out.append(f"{folder}: must have a picture that can be enrolled; received: none")
        # One by one: a picture that is there already is told, and the others are added.
        embeddings = embed(model, crops, config.batch_size) if crops else ()
        for embedding, source in zip(embeddings, sources):
            try:
                gallery.enrol(folder.name, embedding[None], [source])
                added += 1
            except ValueError as error:
                left_out.append(f"{error}; left out")
        bar.add(1)
    if bar_mode:
        print()
    for line in left_out:
        print(line)
    if not added:
        raise run_folder.RunError(f"--enrol={root}: nothing in it was new, and could be enrolled")
    print(f"{added} pictures enrolled")


def recognize(config, model, detector, gallery, files):
    """Names the faces of pictures; returns a row for each."""
    import keras

    from kerasvision import drawing
    from kerasvision.data import pictures
    from kerasvision.embedding.faces import align

    workdir = run_folder.make_folder(config.workdir, space_needed=10e6)
    rows, unreadable, cells, captions, count = [], [], [], [], 0
    bar_mode = int(sys.stdout.isatty())
    bar = keras.utils.Progbar(len(files), verbose=bar_mode)
    for name, picture in pictures.read_files(files, unreadable):
        faces = detector(picture)
        bar.add(1)
        count += 1
        if not faces:
            unreadable.append(f"{name}: no face found")
            drawing.save(picture, workdir / f"{name}.png")
            continue
        crops = [align(picture, face, model.image_shape[:2]) for face in faces]
        embeddings = embed(model, crops, config.batch_size)
        found = gallery.identify(embeddings, config.threshold, config.approximate)
        texts = []
        for i, face in enumerate(faces):
            who = str(found.names[i]) or "unknown"
            texts.append(f"{who} {found.distances[i]:.2f}")
            rows.append(
                {
                    "file_name": name,
                    "box": [round(value, 1) for value in face.box],
                    "name": str(found.names[i]) or None,
                    "nearest": str(found.nearest[i]),
                    "distance": float(found.distances[i]),
                    "source": str(found.sources[i]),
                }
            )
            if len(cells) < 2 * SHEET_FACES:
                color = drawing.RIGHT if found.names[i] else drawing.WRONG
                cells += [crops[i], nearest_known(str(found.sources[i]), crops[i].shape[:2])]
                captions += [
                    [(who, color), (f"{found.distances[i]:.2f}", color)],
                    [(str(found.nearest[i]), drawing.BLACK)],
                ]
        drawing.save(draw_names(picture, faces, texts), workdir / f"{name}.png")
    if bar_mode:
        print()
    for line in unreadable:
        print(line)
    if not count:
        raise run_folder.RunError(f"--input={config.input}: nothing in it could be read")
    run_folder.write_json(workdir / "faces.json", {"faces": rows})
    if cells:
        title = "faces, and the nearest known picture to each"
        drawing.captioned_sheet(cells, captions, workdir / "sheet.png", title, 6, cell=140)
    known = sum(row["name"] is not None for row in rows)
    print(
        f"{len(rows)} faces in {count} pictures, {known} of them known; drawings and faces.json "
        f"are in {workdir}"
    )
    return rows


def draw_names(picture, faces, texts):
    """A picture with the faces' boxes and what is told of them."""
    import numpy as np

    from kerasvision import drawing

    height, width = picture.shape[:2]
    # Small pictures are enlarged: names take room.
    scale = max(1, -(-LEAST_DRAWN // max(height, width)))
    enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    boxes = [(y, x, y + h, x + w) for x, y, w, h in (face.box for face in faces)]
    boxes = np.array(boxes) / [height, width, height, width]
    return drawing.draw_boxes(enlarged, boxes, np.arange(len(texts)), texts)


def nearest_known(source, size):
    """The known picture of a row, or white where it is no longer there."""
    import numpy as np

    from kerasvision.data import pictures

    if pathlib.Path(source).is_file():
        for _, picture in pictures.read_files([pathlib.Path(source)], []):
            return picture
    return np.full((*size, 3), 255, "uint8")


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
