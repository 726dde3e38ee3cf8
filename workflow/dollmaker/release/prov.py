"""Where a release comes from in the terms of W3C PROV (PROV-JSON)."""

from collections.abc import Mapping
from typing import Any

from dollmaker.store.provenance import STAGES

#: Activity -> (what it used, what it made). Members have activities of their own.
_FLOW = {
    "prepare": (["source-images"], ["images"]),
    "attribute": (["images"], ["relevance-maps"]),
    "binarize": (["relevance-maps"], ["masks"]),
    "sanity": (["images", "relevance-maps"], ["sanity"]),
    "labels": (["masks", "sanity"], ["labels"]),
    "segment": (["images", "labels"], ["segmenter"]),
    "evaluate": (["masks"], ["scores"]),
    "release": (["labels", "segmenter", "sanity", "scores"], ["release"]),
}


def describe(
    header: Mapping[str, Any], members: Mapping[str, str], sums: Mapping[str, str], dataset: str
) -> dict[str, Any]:
    """Entities, activities and agents of a release, and what relates them.

    Args:
        header: Provenance of the release.
        members: Member -> sha256 of its weights.
        sums: Other entity -> sha256.
        dataset: Name of the source.
    """
    entities: dict[str, Any] = {}
    activities: dict[str, Any] = {}
    flow = dict(_FLOW)
    for name in members:
        flow[f"classify/{name}"] = (["images"], [f"member/{name}"])
        flow["attribute"] = ([*flow["attribute"][0], f"member/{name}"], flow["attribute"][1])
        flow["release"] = ([*flow["release"][0], f"member/{name}"], flow["release"][1])
    known = {**{f"member/{name}": digest for name, digest in members.items()}, **sums}
    made: dict[str, Any] = {}
    used: dict[str, Any] = {}
    derived: dict[str, Any] = {}
    associated: dict[str, Any] = {}
    for activity, (sources, results) in flow.items():
        stage = activity.split("/")[0]
        activities[_name(activity)] = {"dollmaker:stageVersion": STAGES[stage]}
        _relate(associated, activity=activity, agent="software")
        for source in sources:
            entities.setdefault(_name(source), {})
            _relate(used, activity=activity, entity=source)
        for result in results:
            entities.setdefault(_name(result), {})
            _relate(made, entity=result, activity=activity)
            for source in sources:
                _relate(derived, generatedEntity=result, usedEntity=source)
    entities[_name("source-images")] = {"prov:label": dataset}
    for entity, digest in known.items():
        entities[_name(entity)] = {"dollmaker:sha256": digest}
    software = {
        "prov:type": "prov:SoftwareAgent",
        "prov:label": f"dollmaker {header['dollmaker']}",
        "dollmaker:libraries": header["libraries"],
        **({"dollmaker:commit": header["commit"]} if header["commit"] else {}),
    }
    return {
        "prefix": {"dollmaker": "urn:dollmaker:", "prov": "http://www.w3.org/ns/prov#"},
        "entity": dict(sorted(entities.items())),
        "activity": dict(sorted(activities.items())),
        "agent": {_name("software"): software},
        "wasGeneratedBy": made,
        "used": used,
        "wasDerivedFrom": derived,
        "wasAssociatedWith": associated,
    }


def _name(local: str) -> str:
    return f"dollmaker:{local}"


def _relate(relations: dict[str, Any], **ends: str) -> None:
    """Add a relation under the next blank name."""
    relations[f"_:r{len(relations) + 1}"] = {f"prov:{k}": _name(v) for k, v in ends.items()}
