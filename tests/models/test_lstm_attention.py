"""The LSTM with attention: its numbers are those of torch's own LSTM and of the attention's equations."""

from __future__ import annotations

import pytest
import torch
from symbols import NUM_OUTPUTS, examples, logits, network
from torch import Tensor, nn

from arith_models.networks.lstm_attention import LSTMAttention, LSTMLayer

HIDDEN, LAYERS = 5, 2


def put(layer: LSTMLayer, torch_weights: dict[str, Tensor], index: int = 0) -> None:
    """Copy our weights to torch's layer of this index; its second bias is 0."""
    inputs = len(layer.weight) - HIDDEN
    suffix = f"_l{index}" if f"weight_ih_l{index}" in torch_weights else ""
    torch_weights[f"weight_ih{suffix}"].copy_(layer.weight[:inputs].T)
    torch_weights[f"weight_hh{suffix}"].copy_(layer.weight[inputs:].T)
    torch_weights[f"bias_ih{suffix}"].copy_(layer.bias)
    torch_weights[f"bias_hh{suffix}"].zero_()


def by_torch(model: LSTMAttention, x_N: Tensor) -> Tensor:
    """Return the logits [N, O] of one example without anything outside of it."""
    encoder = nn.LSTM(HIDDEN, HIDDEN, LAYERS)
    cells = [nn.LSTMCell(2 * HIDDEN, HIDDEN), nn.LSTMCell(HIDDEN, HIDDEN)]
    for i in range(LAYERS):
        put(model.encoder[i], encoder.state_dict(), i)
        put(model.decoder[i], cells[i].state_dict())
    e_NH, (h_LH, c_LH) = encoder(model.embedding[x_N])
    states = [(h_LH[i], c_LH[i]) for i in range(LAYERS)]
    a_H, symbol_H, found = torch.zeros(HIDDEN), torch.zeros(HIDDEN), []
    for _ in x_N:
        below = torch.cat([a_H, symbol_H])
        for i, cell in enumerate(cells):
            states[i] = cell(below, states[i])
            below = states[i][0]
        scores = [model.score @ torch.tanh(e_H @ model.of_memory + below @ model.of_decoder) for e_H in e_NH]
        a_H = torch.softmax(torch.stack(scores), 0) @ e_NH
        y_O = torch.cat([below, a_H]) @ model.output + model.output_bias
        symbol_H = torch.softmax(y_O, 0) @ model.output_embedding
        found.append(y_O)
    return torch.stack(found)


def test_an_example_has_the_logits_of_torch_s_lstm_and_the_equations_whatever_is_beside_it() -> None:
    model = network("lstm_attention", hidden=HIDDEN, layers=LAYERS)
    bins = examples(4, 8), examples(4, 11, seed=4)
    assert any((x_BN == -1).any() for x_BN in bins), "some examples are shorter than their bin"
    for x_BN, y_BNO in zip(bins, logits(model, *bins), strict=True):
        assert y_BNO.shape == (*x_BN.shape, NUM_OUTPUTS)
        for x_N, y_NO in zip(x_BN, y_BNO, strict=True):
            inside = x_N >= 0
            with torch.no_grad():
                expected = by_torch(model, x_N[inside])
            torch.testing.assert_close(y_NO[inside], expected, rtol=1e-4, atol=1e-5)


def test_the_published_size_has_about_200_000_parameters() -> None:
    model = LSTMAttention(LSTMAttention.Config(), (), 13, 3)
    assert 180_000 < sum(p.numel() for p in model.parameters()) < 230_000


def test_all_wrong_settings_are_in_one_error() -> None:
    with pytest.raises(ValueError, match="layers = 0") as error:
        LSTMAttention.Config(layers=0, dropout=1.0)
    assert error.value.args == ("layers = 0 must be at least 1", "dropout = 1.0 must lie in [0, 1)")
