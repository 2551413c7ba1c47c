"""How far two sets of pictures are apart, as a network sees them."""

import numpy as np


def frechet_distance(features, other_features):
    """Squared Fréchet distance of two sets of features, taken for normally distributed.

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), with means m and covariances C. With features of
    Inception-v3's last pooling it is the Fréchet Inception Distance of Heusel et al. 2017, "GANs
    Trained by a Two Time-Scale Update Rule", equation 6. Numbers of different networks, or of
    different numbers of pictures, can't be compared.

    Args:
        features, other_features: (N, F) and (M, F), of two pictures or more each.

    Returns:
        float, 0 for equal sets.

    Raises:
        ValueError: fewer than two pictures, or different numbers of features.
    """
    sets = [np.asarray(values, np.float64) for values in (features, other_features)]
    shapes = [values.shape for values in sets]
    if any(len(shape) != 2 or shape[0] < 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            "features must be two arrays (N, F) and (M, F) of two rows or more; received: "
            f"{shapes[0]} and {shapes[1]}"
        )
    means = [values.mean(0) for values in sets]
    covariances = [np.atleast_2d(np.cov(values, rowvar=False)) for values in sets]
    # The eigenvalues of C C' are those of C^(1/2) C' C^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ covariances[1] @ root)
    trace = sum(np.trace(covariance) for covariance in covariances)
    distance = np.sum((means[0] - means[1]) ** 2) + trace
    return float(max(0.0, distance - 2.0 * np.sum(np.sqrt(np.maximum(eigenvalues, 0.0)))))
