"""Makes logits.npy and targets.npy: python examples/digits/make.py (needs scikit-learn).

A multinomial logistic regression learns every other image of scikit-learn's digits; the logits
are those of the images it has not seen.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent

images, labels = load_digits(return_X_y=True)
images = images / images.max()
model = LogisticRegression(max_iter=1000).fit(images[0::2], labels[0::2])
logits = model.decision_function(images[1::2])

np.save(HERE / "logits.npy", logits.astype(np.float32))
np.save(HERE / "targets.npy", labels[1::2].astype(np.int64))
