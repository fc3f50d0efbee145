"""The intensifier of SMAC3 as a peer of racing: `pip install smac`, an optional requirement of the bench.

Seeds are SMAC's instances. Its initial design is all configurations in the order of the search, so that only its decisions are
compared, which configuration gets another seed and which is dropped, and not its model. A trial trains one seed of one
configuration with its whole budget. Lindauer et al., "SMAC3: A Versatile Bayesian Optimization Package for Hyperparameter
Optimization" (2022).
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def why_no_smac() -> str | None:
    """Return why SMAC cannot be measured here; None where it can."""
    if importlib.util.find_spec("smac") is None:
        return "the package smac is not installed: pip install --constraint constraints.txt smac"
    return None


def intensify(configurations: int, seeds: int, cost: Callable[[int, int], float], seed: int) -> Iterator[int]:
    """Yield the incumbent after each trial, until no configuration is left.

    Parameters
    ----------
    configurations, seeds
        Numbers of both; a trial has one number of each.
    cost
        (configuration, seed) -> what is minimised in the mean over seeds.
    seed
        Of SMAC's random numbers.
    """
    from ConfigSpace import Configuration, ConfigurationSpace, Integer
    from smac import AlgorithmConfigurationFacade, Scenario
    from smac.initial_design import DefaultInitialDesign
    from smac.main.config_selector import ConfigSelector
    from smac.runhistory.dataclasses import TrialValue

    logging.getLogger("smac.intensifier").setLevel(logging.ERROR)  # it warns when no configuration is left

    class InitialDesignOnly(ConfigSelector):
        """Selects the configurations of the initial design and none of a model's."""

        def __iter__(self) -> Iterator[Any]:
            yield from self._initial_design_configs

    space = ConfigurationSpace(space=[Integer("number", (0, configurations - 1))])
    with tempfile.TemporaryDirectory(prefix="sweeps-smac-") as folder:
        scenario = Scenario(
            space, output_directory=Path(folder), deterministic=True, n_trials=configurations * seeds, seed=seed,
            instances=[str(one) for one in range(seeds)], instance_features={str(one): [float(one)] for one in range(seeds)},
        )  # fmt: skip
        every = [Configuration(space, {"number": number}) for number in range(configurations)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of ConfigSpace, which SMAC calls
            smac = AlgorithmConfigurationFacade(
                scenario,
                lambda config, instance, seed=0: 0.0,  # not called: trials are asked for one by one
                initial_design=DefaultInitialDesign(scenario, n_configs=0, additional_configs=every),
                intensifier=AlgorithmConfigurationFacade.get_intensifier(scenario, max_config_calls=seeds),
                config_selector=InitialDesignOnly(scenario),
                logging_level=False,
                overwrite=True,
            )
        with suppress(StopIteration):  # no configuration is left
            while True:
                trial = smac.ask()
                smac.tell(trial, TrialValue(cost=cost(int(trial.config["number"]), int(trial.instance or 0))), save=False)
                yield int(smac.intensifier.get_incumbents()[0]["number"])
