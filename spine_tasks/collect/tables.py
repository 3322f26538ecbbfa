"""The tables of an experiment, each made of the one long table of its scores."""

import pandas as pd

from spine_tasks.collect.convergence import convergence
from spine_tasks.collect.ensemble import NAME
from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.generalization import generalization, matrix, trained_on
from spine_tasks.collect.published import beside, published_for
from spine_tasks.collect.set_scores import set_summary
from spine_tasks.stats.comparisons import all_pairs, comparisons
from spine_tasks.stats.factors import factor_effects, interactions
from spine_tasks.stats.summary import summary
from spine_tasks.stats.variance import variance_components

Tables = dict[str, pd.DataFrame]


def tables_of(gathered: Gathered) -> Tables:
    """All tables that the cells allow, by name.

    Returns
    -------
    dict of str to DataFrame
        `runs`, `cases`, `summary` and `comparisons` (empty without a baseline); with several seeds
        of several persons a fold `seeds`; with three arms or more `pairs`; with crossed axes
        `factors` and `interactions`; with a baseline `convergence`; of cords `matrix` and
        `generalization` in place of the last four; of scores of whole sets `sets`; where a study
        has published figures of such a job `published`.
    """
    cases, baseline = gathered.cases, gathered.baseline
    of_persons = gathered.of_persons
    tables = {
        "runs": gathered.runs,
        "cases": cases,
        "summary": summary(of_persons),
        "comparisons": pd.DataFrame() if baseline is None else comparisons(of_persons, baseline),
    }
    of_seeds = variance_components(of_persons)
    if of_seeds["sd_seeds"].notna().any():
        tables["seeds"] = of_seeds
    if gathered.predicts == "cords":  # whose arms have validation data of their own
        trained = trained_on(gathered.experiment, gathered.arms)
        tables["matrix"] = matrix(tables["summary"], trained, list(cases["label"].unique()))
        tables["generalization"] = generalization(cases, trained, baseline)
    else:
        tables |= _of_arms(gathered)
    if len(of_persons) < len(cases):
        tables["sets"] = set_summary(gathered.experiment, gathered.arms, cases, baseline)
    if len(published := _published(gathered, tables)):
        tables["published"] = published
    return tables


def _of_arms(gathered: Gathered) -> Tables:
    """What is asked of arms that were trained and tested on the same data."""
    of_persons, baseline = gathered.of_persons, gathered.baseline
    tables = {}
    if of_persons["arm"].nunique() > 2:
        tables["pairs"] = all_pairs(of_persons)
    if baseline is not None:
        levels = {cell.arm_name: cell.arm for cell in gathered.arms if cell.arm != NAME}
        of_levels = {"factors": factor_effects, "interactions": interactions}
        effects = {name: of(of_persons, levels, baseline) for name, of in of_levels.items()}
        tables |= {name: table for name, table in effects.items() if len(table)}
        tables["convergence"] = convergence(gathered.histories, baseline, gathered.chosen_by)
    return tables


def _published(gathered: Gathered, tables: Tables) -> pd.DataFrame:
    """Our scores and those that studies of the same jobs have published."""
    ours = pd.concat([tables[name] for name in ("summary", "sets") if name in tables])
    jobs = dict.fromkeys(cell.job for cell in gathered.arms)
    beside_ours = [beside(ours, theirs) for job in jobs if len(theirs := published_for(job))]
    there = [one for one in beside_ours if one["published"].any()]
    return pd.concat(there).drop_duplicates() if there else pd.DataFrame()
