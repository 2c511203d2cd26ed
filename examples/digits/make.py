"""Makes the files of this folder: python examples/digits/make.py (needs scikit-learn, safetensors).

A multinomial logistic regression learns every other image of scikit-learn's digits; the logits
are those of the images it has not seen.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent

images, labels = load_digits(return_X_y=True)
images = images / images.max()
model = LogisticRegression(max_iter=1000).fit(images[0::2], labels[0::2])
logits = model.decision_function(images[1::2])

arrays = {"logits": logits.astype(np.float32), "targets": labels[1::2].astype(np.int64)}
for name, array in arrays.items():
    np.save(HERE / f"{name}.npy", array)
np.savez_compressed(HERE / "digits.npz", **arrays)
save_file(arrays, HERE / "digits.safetensors")
(HERE / "shards").mkdir(exist_ok=True)
for i, part in enumerate(np.array_split(arrays["logits"], 3)):
    np.save(HERE / "shards" / f"part-{i}.npy", part)
