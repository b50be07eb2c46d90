"""Models of Hugging Face as they come: tokens, masks and padding by name, attention written out or fused, in float64."""

import pytest
import torch
from conftest import relative

import ntk_course as ntk

transformers = pytest.importorskip("transformers")

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}


def bert(attention, cls="BertForSequenceClassification", config="BertConfig"):
    made = getattr(transformers, config)(**SMALL, num_labels=3, max_position_embeddings=16, attn_implementation=attention)
    return getattr(transformers, cls)(made)


def roberta(attention):
    return bert(attention, "RobertaForSequenceClassification", "RobertaConfig")


def gpt2(attention):
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=4, n_positions=16, num_labels=3, pad_token_id=0, attn_implementation=attention
    )
    return transformers.GPT2ForSequenceClassification(config)


def llama(attention):
    config = transformers.LlamaConfig(
        **SMALL, num_key_value_heads=2, num_labels=3, pad_token_id=0, attn_implementation=attention, max_position_embeddings=16
    )
    return transformers.LlamaForSequenceClassification(config)


# By name: the model, and what its own arithmetic leaves: Llama's norms compute in float32, whatever the model's dtype is.
MODELS = {"BERT": (bert, 1e-12), "RoBERTa": (roberta, 1e-12), "GPT-2": (gpt2, 1e-12), "Llama": (llama, 1e-5)}


def problem(name, attention):
    torch.manual_seed(0)
    model = MODELS[name][0](attention).double().eval()
    ids, mask = torch.randint(2, 50, (5, 7)), torch.ones(5, 7, dtype=torch.long)
    for row, length in ((1, 4), (3, 2), (4, 6)):  # padded at the end
        mask[row, length:] = 0
        ids[row, length:] = 0 if name != "RoBERTa" else 1
    return model, {"input_ids": ids, "attention_mask": mask}


def by_autograd(model, samples, pick=lambda z: z):
    weights, rows = [p for p in model.parameters() if p.requires_grad], []
    for i in range(len(samples["input_ids"])):
        z = pick(model(**{key: value[i : i + 1] for key, value in samples.items()}).logits).flatten()
        found = [torch.autograd.grad(one, weights, retain_graph=True, allow_unused=True, materialize_grads=True) for one in z]
        rows.append(torch.stack([torch.cat([g.flatten() for g in of_one]) for of_one in found]))
    jacobian = torch.stack(rows)
    return torch.einsum("nrd,msd->nmrs", jacobian, jacobian)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_a_classifier_with_padding(name, attention):
    model, samples = problem(name, attention)
    wanted, tolerance = by_autograd(model, samples), MODELS[name][1]
    for size in (None, 2):
        gram = ntk.Gram(model, samples, ntk.basis, output="logits", block_size=size)
        assert relative(gram.dense(), wanted) < tolerance
    assert set(gram.routes.values()) <= {"rule", "none"}
    y = torch.tensor([0, 1, 2, 0, 1])
    signs = ntk.signs(y, 3).double()
    labelled = torch.einsum("nmij,ni,mj->nm", wanted, signs, signs) / 3
    gram = ntk.Gram(model, samples, ntk.labelled(y), output="logits")
    v = torch.randn(5).double()
    assert relative(gram.dense(), labelled) < tolerance
    assert relative(gram @ v, labelled @ v) < tolerance


def test_a_language_model_token_by_token():
    config = transformers.GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    model, ids = transformers.GPT2LMHeadModel(config).double().eval(), torch.randint(0, 11, (3, 4))
    gram = ntk.Gram(model, {"input_ids": ids, "use_cache": False}, ntk.tangents.per_token(ntk.ones), output="logits")
    wanted = by_autograd(model, {"input_ids": ids}, lambda z: z.sum(2) / 11**0.5)
    assert relative(gram.dense(), wanted) < 1e-12


def test_training_and_its_path():
    model, samples = problem("BERT", "sdpa")
    y, held_out = torch.tensor([0, 1, 2, 0, 1]), {key: value[:2].flip(0) for key, value in samples.items()}
    history = ntk.train(model, samples, y, epochs=3, lr=0.1, output="logits", progress=False)
    assert history.loss[-1] < history.loss[0]
    path = ntk.train_path(model, samples, y, steps=2, lr=0.05, output="logits", progress=False)
    assert ntk.epk(path, held_out).error < 1e-12
