"""Embeddings: pictures as points, whose distances tell what belongs together."""

from kerasvision.embedding.facenet import FaceNet, embedding_network, facenet_nn2
from kerasvision.embedding.faces import Face, FaceDetector, align, the_face
from kerasvision.embedding.gallery import Gallery, Match, fingerprint
from kerasvision.embedding.loading import load_embedding
from kerasvision.embedding.posed import PoseDescriptor, descriptor_network
from kerasvision.embedding.siamese import ChiSquared, Siamese, WeightedL1
