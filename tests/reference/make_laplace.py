"""Write laplace.json: linearised Laplace by laplace-torch, an independent implementation that inverts over weights.

pip install torch laplace-torch
python tests/reference/make_laplace.py
"""

import json
from pathlib import Path

import torch
from laplace import Laplace
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
x, y, asked = torch.randn(20, 4), torch.randint(3, (20,)), 2 * torch.randn(5, 4)
optimizer = torch.optim.Adam(model.parameters(), 0.05)
for _ in range(200):
    optimizer.zero_grad()
    (
        nn.functional.cross_entropy(model(x), y, reduction="sum") + 0.1 * sum(p.square().sum() for p in model.parameters())
    ).backward()
    optimizer.step()

found = []
for precision in (0.2, 3.0):
    posterior = Laplace(model, "classification", subset_of_weights="all", hessian_structure="full", prior_precision=precision)
    posterior.fit(DataLoader(TensorDataset(x, y), batch_size=20))
    covariance = posterior._glm_predictive_distribution(asked)[1]
    row = {"precision": precision, "covariance": covariance.tolist(), "evidence": float(posterior.log_marginal_likelihood())}
    found.append(row)
weights = {name: p.tolist() for name, p in model.state_dict().items()}
settings = {"weights": weights, "x": x.tolist(), "y": y.tolist(), "asked": asked.tolist(), "found": found}
(Path(__file__).parent / "laplace.json").write_text(json.dumps(settings))
