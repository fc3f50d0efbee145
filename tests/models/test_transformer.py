"""The Transformer against torch's own layer where distances do not count, and scores by distance by their definition."""

from __future__ import annotations

import pytest
import torch
from symbols import NUM_INPUTS, examples, logits, network
from torch import Tensor, nn

from arith_models.networks import transformer
from arith_models.networks.transformer import Transformer
from sweeps.training.random import Stream, seed_key

WIDTH, HEADS, INNER, LAYERS = 8, 2, 12, 2
SMALL = {"width": WIDTH, "heads": HEADS, "inner": INNER, "layers": LAYERS, "farthest": 3}


def drawn(model: Transformer) -> Transformer:
    """With gains and shifts that are not 1 and 0, and distances that are 0."""
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.add_(0.3 * Stream(seed_key(i, "model")).normal(p.shape))
        model.layers["distance"].zero_()
    return model


def torch_layer(model: Transformer, i: int) -> nn.TransformerEncoderLayer:
    theirs = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, dropout=0.0, activation="relu", batch_first=True, norm_first=True)
    values = {
        "self_attn.in_proj_weight": model.layers["look"][i].T, "self_attn.out_proj.weight": model.layers["gather"][i].T,
        "self_attn.in_proj_bias": torch.zeros(3 * WIDTH), "self_attn.out_proj.bias": torch.zeros(WIDTH),
        "linear1.weight": model.layers["inner"][i].T, "linear1.bias": model.layers["inner_bias"][i],
        "linear2.weight": model.layers["outer"][i].T, "linear2.bias": model.layers["outer_bias"][i],
        "norm1.weight": model.layers["gain"][i], "norm1.bias": model.layers["shift"][i],
        "norm2.weight": model.layers["inner_gain"][i], "norm2.bias": model.layers["inner_shift"][i],
    }  # fmt: skip
    theirs.load_state_dict(values)
    return theirs


def by_torch(model: Transformer, x_BN: Tensor) -> Tensor:
    with torch.no_grad():
        h_BND = model.embedding[x_BN.clamp(min=0)]
        for i in range(LAYERS):
            index = 0 if model.config.shared else i
            h_BND = torch_layer(model, index)(h_BND, src_key_padding_mask=x_BN < 0)
        last = nn.functional.layer_norm(h_BND, (WIDTH,), model.last_gain, model.last_shift)
        y_BNO: Tensor = last @ model.output + model.output_bias
    return y_BNO


@pytest.mark.parametrize("shared", [False, True])
def test_without_distances_it_is_torch_s_encoder(shared: bool) -> None:
    model = drawn(network("transformer", shared=shared, **SMALL))
    bins = examples(4, 8), examples(4, 11, seed=4)
    for x_BN, y_BNO in zip(bins, logits(model, *bins), strict=True):
        inside = x_BN >= 0
        torch.testing.assert_close(y_BNO[inside], by_torch(model, x_BN)[inside], rtol=1e-4, atol=1e-5)


def test_scores_by_distance_are_the_query_times_the_vector_of_the_clipped_distance() -> None:
    model = network("transformer", **SMALL)
    r_RC = model.layers["distance"][0].detach()
    for first, rows, length in ((0, 9, 9), (4, 3, 9), (8, 1, 9), (0, 1, 1)):
        q_BAQC = Stream(seed_key(2, "model")).normal((2, HEADS, rows, WIDTH // HEADS))
        found = model._distance_scores(q_BAQC, r_RC, first, length)
        for i in range(rows):
            for j in range(length):
                r_C = r_RC[max(-3, min(3, j - (first + i))) + 3]
                torch.testing.assert_close(found[:, :, i, j], q_BAQC[:, :, i] @ r_C)


def test_attention_in_parts_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x_BN = network("transformer", **SMALL), examples(4, 11)
    (whole,) = logits(model, x_BN)
    monkeypatch.setattr(transformer, "MOST_PAIRS", 3 * 11)
    (parts,) = logits(model, x_BN)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_all_far_distances_give_the_same_scores() -> None:
    """All farther than `farthest` share one vector: whether a symbol is 10 or 20 positions away makes no difference."""
    model = network("transformer", **{**SMALL, "layers": 1})
    near, far = torch.ones(1, 30, dtype=torch.int64), torch.ones(1, 30, dtype=torch.int64)
    near[0, 10], far[0, 20] = NUM_INPUTS - 1, NUM_INPUTS - 1
    torch.testing.assert_close(logits(model, near)[0][0, 0], logits(model, far)[0][0, 0])


def test_an_error_of_wrong_settings_contains_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="heads = 3") as error:
        Transformer.Config(width=8, heads=3, dropout=-0.1)
    heads, dropout = error.value.args
    assert heads == "heads = 3 must divide width = 8: one of [1, 2, 4, 8]" and dropout.startswith("dropout = -0.1")
