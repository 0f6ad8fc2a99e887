//! Parts that two flows have in common: one is taken out of both, and becomes a flow that both read.
//!
//! Two parts are the same if [`PlanPair`] pairs their last operators, and so everything below. Neither flow may need
//! an operator of the part beside the part's output. The flows go on with the state that they have.
//!
//! ```text
//! Aggregate [sum(v) by k]           Aggregate [sum(v) by k]    Aggregate [max(v)]
//!   Join [t.id = u.id]       =>       Input (the part)           Input (the part)
//! Aggregate [max(v)]
//!   Join [t.id = u.id]              Join [t.id = u.id]
//! ```
//!
//! Deliberately absent: flows that forget rows, or whose answer depends on the time: their state depends on when they
//! were made. An operator from which readers get the result of a flow can be taken out only if what is left computes each
//! row by itself, so that the result follows from the part's.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;

use crate::content::keeps_all;
use crate::dag::{Dag, Node};
use crate::flow::Flow;
use crate::operator::Description;
use crate::provenance::Provenance;
use crate::row_stages::row_by_row_input;
use crate::sharing::{Findables, Lookups};
use crate::succession::PlanPair;
use crate::{Error, Result};

/// A part of two flows, by the places of its last operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommonPart {
    /// The place in the first flow.
    pub one: usize,
    /// The place in the second flow.
    pub other: usize,
    /// The number of its operators and inputs.
    pub nodes: usize,
}

/// A flow without a part, and the part.
#[derive(Debug)]
pub struct Divided {
    /// The part as a flow. Equal parts number their operators in the same order.
    pub part: Flow,
    /// The rest. It reads the part as its relation of the given name.
    pub rest: Flow,
}

/// One of two flows that may have a part in common.
#[derive(Clone, Copy, Debug)]
pub struct Sharer<'a> {
    /// The flow.
    pub flow: &'a Flow,
    /// True if its operators hold the result for readers.
    pub holds_result: bool,
    /// True if it is a part itself: it is shared as a whole, or not at all.
    pub is_part: bool,
}

impl CommonPart {
    /// Returns the smallest part that two running flows can both read from a flow of its own. What they have in common
    /// above it can become a part as well, which then reads this one.
    pub fn of(one: Sharer<'_>, other: Sharer<'_>) -> Option<CommonPart> {
        let is_plain = |flow: &Flow| flow.dag.started && flow.is_timeless() && flow.late_schema().is_none();
        if !is_plain(one.flow) || !is_plain(other.flow) {
            return None;
        }
        let pairs = PlanPair { new: one.flow, old: other.flow }.pair_all();
        let (of_one, of_other) = (Separable::of(one), Separable::of(other));
        let paired = pairs.iter().enumerate();
        let parts = paired.filter_map(|(one, other)| Some((one, (*other)?)));
        let sized = parts.filter_map(|(one, other)| {
            let nodes = of_one.size(one)?;
            of_other.size(other).map(|_| CommonPart { one, other, nodes })
        });
        sized.min_by_key(|part| (part.nodes, part.one))
    }

    /// Returns the relations that the part reads; `one` is the first flow.
    pub fn relations_of(&self, one: &Flow) -> Vec<Arc<str>> {
        let relation = |place: usize| match &one.dag.nodes[place] {
            Node::Input { relation, .. } => Some(one.relations[*relation].clone()),
            Node::Operator { .. } => None,
        };
        order_below(&one.dag.nodes, self.one).into_iter().filter_map(relation).collect()
    }
}

/// Decides which parts of a flow can be separated from the rest.
struct Separable<'a> {
    dag: &'a Dag,
    /// The nodes by which readers get the result.
    held: HashSet<usize>,
    /// The one of these that keeps the result. Each node above it computes each row of its input by itself.
    keeper: Option<usize>,
    /// For each node, true if it keeps state.
    keeps_state: Vec<bool>,
    is_part: bool,
}

impl Separable<'_> {
    fn of(sharer: Sharer<'_>) -> Separable<'_> {
        let dag = &sharer.flow.dag;
        let (held, keeper) = if sharer.holds_result { held_of(&dag.nodes) } else { (HashSet::new(), None) };
        let keeps_state = dag.nodes.iter().map(keeps_state).collect();
        Separable { dag, held, keeper, keeps_state, is_part: sharer.is_part }
    }

    /// Returns the number of nodes of the part that ends at an operator, if the part keeps state and the rest needs no
    /// other operator of it.
    fn size(&self, node: usize) -> Option<usize> {
        let nodes = &self.dag.nodes;
        let is_operator = |place: usize| matches!(nodes[place], Node::Operator { .. });
        let is_held = self.held.contains(&node) && self.keeper != Some(node);
        if is_held || !is_operator(node) || (self.is_part && node + 1 < nodes.len()) {
            return None;
        }
        let below = order_below(nodes, node);
        if !below.iter().any(|place| self.keeps_state[*place]) {
            return None;
        }
        let inside: HashSet<usize> = below.iter().copied().collect();
        let is_needed = |place: &usize| {
            let mut others = (0..nodes.len()).filter(|other| !inside.contains(other));
            *place != node && is_operator(*place) && others.any(|other| nodes[other].reads(*place))
        };
        let is_split = |place: &Findables| {
            let within = place.sides.iter().filter(|side| inside.contains(&side.node)).count();
            within > 0 && within < place.sides.len()
        };
        let is_whole = !below.iter().any(is_needed) && !self.dag.lookups.places().iter().any(is_split);
        is_whole.then_some(below.len())
    }
}

/// Returns the nodes by which readers get the result of a flow, and the one that keeps it, if those above it compute each
/// row of their input by itself.
fn held_of(nodes: &[Node]) -> (HashSet<usize>, Option<usize>) {
    let root = nodes.len().checked_sub(1);
    let (mut held, mut left) = (HashSet::new(), Vec::from_iter(root));
    while let Some(place) = left.pop() {
        if let (true, false, Node::Operator { inputs, .. }) =
            (held.insert(place), keeps_all(&nodes[place]), &nodes[place])
        {
            left.extend(inputs);
        }
    }
    let mut keeper = root;
    while let Some(place) = keeper.filter(|place| !keeps_all(&nodes[*place])) {
        keeper = row_by_row_input(&nodes[place]);
    }
    (held, keeper)
}

fn keeps_state(node: &Node) -> bool {
    matches!(node, Node::Operator { operator, .. } if !operator.describe().state.is_empty())
}

/// Returns a hash for each part of a flow's plan that keeps state. Flows without a hash in common have no part in common.
pub fn part_hashes(flow: &Flow) -> Vec<u64> {
    let stateful = flow.dag.nodes.iter().zip(&flow.plans).filter(|(node, _)| keeps_state(node));
    let hash = |plan: &LogicalPlan| {
        let mut hasher = DefaultHasher::new();
        plan.hash(&mut hasher);
        hasher.finish()
    };
    stateful.flat_map(|(_, plans)| plans.iter().map(hash)).collect()
}

/// Returns a node and all below it, each after its inputs, in an order that follows from how they read one another.
fn order_below(nodes: &[Node], node: usize) -> Vec<usize> {
    fn add(nodes: &[Node], node: usize, order: &mut Vec<usize>, seen: &mut HashSet<usize>) {
        if !seen.insert(node) {
            return;
        }
        if let Node::Operator { inputs, .. } = &nodes[node] {
            inputs.iter().for_each(|input| add(nodes, *input, order, seen));
        }
        order.push(node);
    }
    let (mut order, mut seen) = (Vec::new(), HashSet::new());
    add(nodes, node, &mut order, &mut seen);
    order
}

impl Divided {
    /// Divides a flow at an operator. The rest reads the part's output as a relation of this name.
    pub fn of(flow: Flow, node: usize, relation: Arc<str>) -> Result<Divided> {
        let Flow { mut relations, mut batchwise, plans, times, provenance: _, dag } = flow;
        if !dag.nodes.get(node).is_some_and(|node| matches!(node, Node::Operator { .. })) {
            return Err(undivided());
        }
        let of_part = order_below(&dag.nodes, node);
        let inside: HashSet<usize> = of_part.iter().copied().collect();
        let others = || (0..dag.nodes.len()).filter(|place| !inside.contains(place));
        let read_by_both = |place: &usize| {
            let is_input = matches!(dag.nodes[*place], Node::Input { .. });
            is_input && others().any(|reader| dag.nodes[reader].reads(*place))
        };
        let of_both: HashSet<usize> = of_part.iter().copied().filter(read_by_both).collect();
        let mut of_rest: Vec<usize> = others().chain(of_both.iter().copied()).chain([node]).collect();
        of_rest.sort_unstable();
        let end = Node::Input {
            relation: relations.len(),
            properties: dag.nodes[node].properties().clone(),
            about: Description::default(),
        };
        relations.push(relation);
        batchwise.push(false);
        let (started, version, now) = (dag.started, dag.version, dag.now);
        let Dag { nodes, meters, limits, lookups, threads, .. } = dag;
        let is_inside = |place: &Findables| place.sides.iter().all(|side| inside.contains(&side.node));
        let (in_part, in_rest): (Vec<Findables>, Vec<Findables>) =
            lookups.into_places().into_iter().partition(is_inside);
        let mut source =
            Source { nodes: nodes.into_iter().map(Some).collect(), of_both, relations, batchwise };
        let mut flow = |order: &[usize], end: Option<Node>, places, times| -> Result<Flow> {
            let Picked { nodes, relations, batchwise, places } = source.pick(order, (node, end), places)?;
            let mut dag = Dag::new(nodes, Lookups::new(places), limits, threads.clone());
            (dag.started, dag.version, dag.now) = (started, version, now);
            dag.meters = order.iter().map(|place| meters[*place]).collect();
            let provenance = Provenance::of(&dag.nodes, vec![None; order.len()]);
            let plans = order.iter().map(|place| plans[*place].clone()).collect();
            Ok(Flow { relations, batchwise, plans, times, provenance, dag })
        };
        // The rest first: it gets copies of the inputs that both read.
        let rest = flow(&of_rest, Some(end), in_rest, times)?;
        let part = flow(&of_part, None, in_part, Vec::new())?;
        Ok(Divided { part, rest })
    }
}

/// The nodes and relations of a flow that is being divided.
struct Source {
    /// The nodes by their places; those that were picked are gone.
    nodes: Vec<Option<Node>>,
    /// The inputs that are picked twice.
    of_both: HashSet<usize>,
    relations: Vec<Arc<str>>,
    batchwise: Vec<bool>,
}

/// Some nodes of a flow, with new places.
struct Picked {
    nodes: Vec<Node>,
    relations: Vec<Arc<str>>,
    batchwise: Vec<bool>,
    places: Vec<Findables>,
}

impl Source {
    /// Takes nodes out in this order. `end` replaces the node at its place.
    fn pick(
        &mut self,
        order: &[usize],
        (at, mut end): (usize, Option<Node>),
        places: Vec<Findables>,
    ) -> Result<Picked> {
        let numbers: HashMap<usize, usize> =
            order.iter().enumerate().map(|(number, place)| (*place, number)).collect();
        let mut known: HashMap<usize, usize> = HashMap::new();
        let mut picked =
            Picked { nodes: Vec::new(), relations: Vec::new(), batchwise: Vec::new(), places: Vec::new() };
        for place in order {
            let taken = end.take_if(|_| *place == at).or_else(|| self.take(*place));
            let mut node = taken.ok_or_else(undivided)?;
            match &mut node {
                Node::Input { relation, .. } => {
                    let of = *relation;
                    *relation = *known.entry(of).or_insert_with(|| {
                        picked.relations.push(self.relations[of].clone());
                        picked.batchwise.push(self.batchwise[of]);
                        picked.relations.len() - 1
                    });
                }
                Node::Operator { inputs, .. } => {
                    for input in inputs {
                        *input = *numbers.get(input).ok_or_else(undivided)?;
                    }
                }
            }
            picked.nodes.push(node);
        }
        picked.places.extend(places.into_iter().filter_map(|place| place.placed(&numbers)));
        picked
            .places
            .sort_by_key(|place| (place.input, place.sides.first().map(|side| (side.node, side.at))));
        Ok(picked)
    }

    /// Takes a node, or a copy of one that is picked twice.
    fn take(&mut self, place: usize) -> Option<Node> {
        match &self.nodes[place] {
            Some(Node::Input { relation, properties, about }) if self.of_both.remove(&place) => {
                let (properties, about) = (properties.clone(), about.clone());
                Some(Node::Input { relation: *relation, properties, about })
            }
            _ => self.nodes[place].take(),
        }
    }
}

fn undivided() -> Error {
    Error::Bug("a flow can't be divided there".into())
}

#[cfg(test)]
mod tests;
