"""Write attribution.json: TRAK by traker, an independent implementation that works with features, not with kernels.

pip install torch traker
python tests/reference/make_attribution.py
"""

import json
import logging
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trak import TRAKer
from trak.projectors import NoOpProjector, ProjectionType

logging.disable()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
x, y, asked, labels = torch.randn(20, 4), torch.randint(3, (20,)), torch.randn(5, 4), torch.randint(3, (5,))
optimizer = torch.optim.Adam(model.parameters(), 0.05)
for _ in range(100):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
model.eval()

size = sum(p.numel() for p in model.parameters())
found = []
for ridge in (0.3, 3.0):
    projector = NoOpProjector(size, size, 0, ProjectionType.normal, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        traker = TRAKer(
            model=model,
            task="image_classification",
            train_set_size=len(x),
            save_dir=folder,
            device="cpu",
            projector=projector,
            proj_dim=size,
            lambda_reg=ridge,
            use_half_precision=False,
        )
        traker.load_checkpoint(model.state_dict(), model_id=0)
        for batch in DataLoader(TensorDataset(x, y), batch_size=7):
            traker.featurize(batch=batch, num_samples=len(batch[0]))
        traker.finalize_features()
        traker.start_scoring_checkpoint("a", model.state_dict(), model_id=0, num_targets=len(asked))
        traker.score(batch=(asked, labels), num_samples=len(asked))
        scores = torch.as_tensor(traker.finalize_scores(exp_name="a"))  # (N, M), up to a positive factor
        found.append({"ridge": ridge * float(traker.normalize_factor) ** 2, "scores": scores.T.tolist()})
weights = {name: p.tolist() for name, p in model.state_dict().items()}
settings = {
    "weights": weights,
    "x": x.tolist(),
    "y": y.tolist(),
    "asked": asked.tolist(),
    "labels": labels.tolist(),
    "found": found,
}
(Path(__file__).parent / "attribution.json").write_text(json.dumps(settings))
