"""Array kernels for average precision, AUROC, d' and permutation maxima, exact with ties."""
