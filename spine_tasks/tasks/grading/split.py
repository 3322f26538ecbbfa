"""A network cut in two: what is frozen, whose maps can be kept, and the rest, which learns.

The cut is found in the network's own graph, so it needs to know nothing of its kind: all that does
not depend on a trained weight is the frozen part.
"""

from collections.abc import Mapping, Sequence
from math import prod
from operator import getitem
from typing import Any

import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn


class Uncut(Exception):
    """The network has no frozen part, or cannot be traced."""


class _Tracer(fx.Tracer):
    """Follows a network of timm; what timm says cannot be traced stays whole."""

    def __init__(self) -> None:
        functions: Any = get_notrace_functions  # timm has no types here
        modules: Any = get_notrace_modules
        super().__init__(autowrap_functions=tuple(functions()))
        self.whole = tuple(modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node of the graph."""
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shapes of all nodes that are a tensor with a row an image."""

    images: int
    found: dict[fx.Node, tuple[int, ...]]  # without the number of images

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node."""
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.shape[:1] == (self.images,):
            self.found[n] = tuple(value.shape[1:])
        return value


def cut(network: nn.Module, images: Tensor) -> tuple[nn.Module, nn.Module]:
    """The frozen part of a network, and the rest, which takes its map.

    Both use the network's own weights: when it learns, they do. Where the rest needs several maps,
    they are side by side in one, (N, all their numbers).

    Parameters
    ----------
    images
        (N, C, H, W) as the network is given; of one image only, what belongs to the batch cannot
        be told from what belongs to the image.

    Raises
    ------
    Uncut
    """
    try:
        graph = _Tracer().trace(network)
    except Exception as error:  # whatever a network's code does that cannot be followed
        raise Uncut(f"it cannot be traced ({error})") from error
    whole = fx.GraphModule(network, graph)
    run = _Shapes(whole)
    run.images, run.found = len(images), {}
    was = network.training
    with torch.no_grad():
        network.eval()
        run.run(images)
        network.train(was)
    nodes = list(graph.nodes)
    found = _maps(nodes[-1], _learning(graph, network), set(run.found))
    if not found or any(one.op == "placeholder" for one in found):
        raise Uncut("nothing of it is frozen")
    maps = {node: run.found[node] for node in sorted(found, key=nodes.index)}
    return _before(network, graph, list(maps)), _after(network, graph, maps)


def _learning(graph: fx.Graph, network: nn.Module) -> set[fx.Node]:
    """The nodes that depend on a trained weight."""
    named = dict(network.named_parameters())
    found: set[fx.Node] = set()
    for node in graph.nodes:
        own: list[nn.Parameter] = []
        if node.op == "call_module":
            own = list(network.get_submodule(str(node.target)).parameters())
        elif node.op == "get_attr" and str(node.target) in named:
            own = [named[str(node.target)]]
        if any(one.requires_grad for one in own) or found & set(node.all_input_nodes):
            found.add(node)
    return found


def _maps(node: fx.Node, learning: set[fx.Node], tensors: set[fx.Node]) -> set[fx.Node]:
    """The frozen tensors that a node is computed from; weights and shapes are none of them."""
    found: set[fx.Node] = set()
    seen, waiting = set[fx.Node](), list(node.all_input_nodes)
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if one not in learning and one in tensors and one.op != "get_attr":
            found.add(one)
        else:
            waiting += one.all_input_nodes
    return found


def _before(network: nn.Module, graph: fx.Graph, maps: Sequence[fx.Node]) -> nn.Module:
    """The graph up to some nodes."""
    needed = set.union(*(_needed(one, set()) for one in maps))
    new, own = fx.Graph(), dict[fx.Node, Any]()
    _copy(graph, new, own, needed)
    found = own[maps[0]]
    if len(maps) > 1:
        found = new.call_function(
            torch.cat, ([new.call_method("flatten", (own[one], 1)) for one in maps], 1)
        )
    new.output(found)
    return fx.GraphModule(network, new)


def _after(
    network: nn.Module, graph: fx.Graph, maps: Mapping[fx.Node, tuple[int, ...]]
) -> nn.Module:
    """The graph from some nodes on, whose values are its input."""
    new, own = fx.Graph(), dict[fx.Node, Any]()
    given, at = new.placeholder("frozen_map"), 0
    for node, shape in maps.items():
        own[node] = given
        if len(maps) > 1:
            part = (slice(None), slice(at, at := at + prod(shape)))
            own[node] = new.call_method(
                "reshape", (new.call_function(getitem, (given, part)), -1, *shape)
            )
    [output] = [node for node in graph.nodes if node.op == "output"]
    _copy(graph, new, own, _needed(output, set(maps)))
    return fx.GraphModule(network, new)


def _needed(node: fx.Node, given: set[fx.Node]) -> set[fx.Node]:
    """All that a node is computed from, back to what is given."""
    found, waiting = set[fx.Node](), [node]
    while waiting:
        one = waiting.pop()
        if one not in found and one not in given:
            found.add(one)
            waiting += one.all_input_nodes
    return found


def _copy(graph: fx.Graph, new: fx.Graph, own: dict[fx.Node, Any], needed: set[fx.Node]) -> None:
    """Copy some nodes of a graph; `own` says what stands for each in the new one."""
    for node in graph.nodes:
        if node in needed and node not in own:
            own[node] = new.node_copy(node, lambda one: own[one])
