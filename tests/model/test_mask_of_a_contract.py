"""A contract's mask that cannot be right is refused before the model takes over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_contract, tiny_graph

from ptychostream.errors import ModelError
from ptychostream.model.contract import ModelContract, PackedArray, Preprocessing
from ptychostream.model.model_file import load_model, write_model


def test_a_mask_of_more_than_half_of_the_pixels(tmp_path: Path) -> None:
    path, contract = tmp_path / "m.onnx", tiny_contract()
    bad = np.zeros(contract.input_shape, np.bool_)
    bad[0] = True
    write_model(path, tiny_graph(), _masked(contract, bad))
    assert load_model(path).contract.preprocessing.bad_pixels is not None
    with pytest.raises(ModelError, match="the mask calls 94% of the pixels bad") as caught:
        write_model(path, tiny_graph(), _masked(contract, ~bad))
    assert "inverted" in str(caught.value)


def test_a_saturation_is_kept_and_older_contracts_read() -> None:
    assert Preprocessing.model_validate_json("{}").saturation is None
    assert (
        "saturation"
        not in ModelContract(name="m", input_shape=(4, 4), output_shape=(4, 4), object_pixel_m=1e-8).to_json()
    )
    kept = Preprocessing(saturation=4095)
    assert Preprocessing.model_validate_json(kept.model_dump_json(exclude_none=True)) == kept


def _masked(contract: ModelContract, mask: np.ndarray) -> ModelContract:
    spec = contract.preprocessing.model_copy(update={"bad_pixels": PackedArray.pack(mask)})
    return contract.model_copy(update={"preprocessing": spec})
