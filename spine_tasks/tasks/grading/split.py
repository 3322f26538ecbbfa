"""A network cut in two: what is frozen, whose maps can be kept, and the rest, which learns.

The cut is found in the network's own graph, so it needs to know nothing of its kind: all that does
not depend on a trained weight is the frozen part.
"""

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


class _Tensors(fx.Interpreter):
    """Runs a graph and notes which nodes are tensors."""

    found: set[fx.Node]

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node."""
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found.add(n)
        return value


def cut(network: nn.Module, images: Tensor) -> tuple[nn.Module, nn.Module]:
    """The frozen part of a network, and the rest, which takes its map.

    Both use the network's own weights: when it learns, they do.

    Parameters
    ----------
    images
        (N, C, H, W) as the network is given.

    Raises
    ------
    Uncut
    """
    try:
        graph = _Tracer().trace(network)
    except Exception as error:  # whatever a network's code does that cannot be followed
        raise Uncut(f"it cannot be traced ({error})") from error
    whole = fx.GraphModule(network, graph)
    run = _Tensors(whole)
    run.found = set()
    was = network.training
    with torch.no_grad():
        network.eval()
        run.run(images)
        network.train(was)
    learning = _learning(graph, network)
    nodes = list(graph.nodes)
    maps = _maps(nodes[-1], learning, run.found)
    while len(maps) > 1:  # paths that part early: the rest computes the later map itself
        latest = max(maps, key=nodes.index)
        maps = (maps - {latest}) | _maps(latest, learning, run.found)
    if not maps or (first := maps.pop()).op == "placeholder":
        raise Uncut("nothing of it is frozen")
    return _before(network, graph, first), _after(network, graph, first)


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


def _before(network: nn.Module, graph: fx.Graph, last: fx.Node) -> nn.Module:
    """The graph up to a node."""
    new, own = _copied(graph, needed=_needed(last, None), first=None)
    new.output(own[last])
    return fx.GraphModule(network, new)


def _after(network: nn.Module, graph: fx.Graph, first: fx.Node) -> nn.Module:
    """The graph from a node on, which is its input."""
    [output] = [node for node in graph.nodes if node.op == "output"]
    new, _ = _copied(graph, needed=_needed(output, first), first=first)
    return fx.GraphModule(network, new)


def _needed(node: fx.Node, first: fx.Node | None) -> set[fx.Node]:
    """All that a node is computed from, back to `first`."""
    found, waiting = set[fx.Node](), [node]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += one.all_input_nodes if one is not first else []
    return found


def _copied(
    graph: fx.Graph, needed: set[fx.Node], first: fx.Node | None
) -> tuple[fx.Graph, dict[fx.Node, Any]]:
    """A copy of some nodes of a graph, of which `first` is the input."""
    new, own = fx.Graph(), dict[fx.Node, Any]()
    for node in graph.nodes:
        if first is not None and node is first:
            own[node] = new.placeholder("frozen_map")
        elif first is not None and node.op == "placeholder":
            own[node] = node.args[0] if node.args else None  # not given: its default
        elif node in needed:
            own[node] = new.node_copy(node, lambda one: own[one])
    return new, own
