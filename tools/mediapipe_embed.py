"""What MediaPipe's ImageEmbedder makes of pictures, and how alike it finds them.

  python tools/mediapipe_embed.py --model=model_float32.tflite --input=pictures
  python tools/mediapipe_embed.py --model=model_int8.tflite --input=pictures --output=seen.json

Needs the packages mediapipe and absl-py, in an environment of their own: mediapipe's OpenCV
replaces the one of kerasvision. --input is a picture or a folder of pictures. It prints a line for
each picture, in the order of their names: the numbers of its embedding and its length; and of
several pictures the one most like it, with their cosine similarity, as MediaPipe computes it. The
output is a list with an entry for each picture: "file", "embedding", and "similarities", to all of
the pictures.
"""

import json
import math
import pathlib
import sys

import mediapipe
from absl import app, flags
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import vision

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, ".tflite file.", required=True)
flags.DEFINE_string("input", None, "Picture, or folder of pictures.", required=True)
flags.DEFINE_string("output", None, "JSON file to write. Default: none.")
flags.DEFINE_bool("l2_normalize", False, "Embeddings of length 1; a FaceNet's have it already.")
flags.DEFINE_bool("quantize", False, "Embeddings as integers, from -128 to 127.")


def embed(files):
    """The `Embedding`s of picture files."""
    options = vision.ImageEmbedderOptions(
        base_options=tasks.BaseOptions(model_asset_path=FLAGS.model),
        l2_normalize=FLAGS.l2_normalize,
        quantize=FLAGS.quantize,
    )
    with vision.ImageEmbedder.create_from_options(options) as embedder:
        images = (mediapipe.Image.create_from_file(str(file)) for file in files)
        return [embedder.embed(image).embeddings[0] for image in images]


def main(argv):
    del argv
    source = pathlib.Path(FLAGS.input)
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    files = [file for file in files if file.suffix.lower() in (".png", ".jpg", ".jpeg")]
    if not files or not files[0].is_file():
        sys.exit(f"error: --input={source}: must be a picture or a folder of some (PNG, JPEG)")
    found = embed(files)
    rows = []
    for i, (file, own) in enumerate(zip(files, found)):
        similarities = [vision.ImageEmbedder.cosine_similarity(own, other) for other in found]
        numbers = own.embedding.tolist()
        length = math.sqrt(sum(number**2 for number in numbers))
        line = f"{file.name}: {len(numbers)} numbers, length {length:.4f}"
        others = [j for j in range(len(files)) if j != i]
        if others:
            nearest = max(others, key=lambda j: similarities[j])
            line += f"; most like {files[nearest].name}, cosine {similarities[nearest]:.4f}"
        print(line)
        rows.append({"file": file.name, "embedding": numbers, "similarities": similarities})
    if FLAGS.output is not None:
        pathlib.Path(FLAGS.output).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    app.run(main)
