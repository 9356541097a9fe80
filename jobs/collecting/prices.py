"""What answers of a member cost, as far as the configuration says."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from cluster.schema import Configuration


def parted(member: str) -> tuple[str, str]:
    """The name in the configuration, and the strategy; an empty text for none.

    >>> parted("adder|brief"), parted("adder")
    (('adder', 'brief'), ('adder', ''))
    """
    base, _, strategy = member.partition("|")
    return base, strategy


def members(names: Sequence[str], configuration: Configuration) -> pa.Table:
    """Prices of members, money per token; null for ensembles, and where the configuration writes none."""
    rows = []
    for name in names:
        base, _ = parted(name)
        model = configuration.models.get(configuration.bases.get(base, ""))
        known = model is not None and priced(configuration, base)
        read, written = (float(p) / 1e6 for p in (model.price.input, model.price.output)) if model else (0.0, 0.0)
        rows.append(
            {"member": name, "input_price": read if known else None, "output_price": written if known else None}
        )
    types = [("member", pa.string()), ("input_price", pa.float64()), ("output_price", pa.float64())]
    return pa.Table.from_pylist(rows, pa.schema(types))


def priced(configuration: Configuration, name: str) -> bool:
    """Whether a price is written in the configuration for each model that answers of this name come from."""
    base = configuration.bases.get(name)
    if base is not None:
        return "price" in configuration.models[base].model_fields_set
    ensemble = configuration.ensembles[name]
    judge = configuration.judges[ensemble.judge].model if ensemble.judge is not None else None
    return all(priced(configuration, member) for member in (*ensemble.members, *([judge] if judge else [])))
