//! Succession: a new flow takes over the state of operators that are the same in the flow that it replaces.
//!
//! Two operators are the same if they have equal parts of plans, equal limits and the same relations, and if
//! everything below them is the same. Plans are compared as values, not as texts. Such an operator continues
//! with the old state. Any other is recomputed: from the outputs so far of those below it, if these follow
//! from their state, or from the content of its relations.
//!
//! ```text
//! SELECT k, sum(v) FROM t GROUP BY k              Stateless [k, sum]         recomputed from the groups
//! SELECT k, sum(v) + 1 FROM t GROUP BY k            Aggregate [sum(v) by k]  kept
//! ```
//!
//! Deliberately absent: flows that forget, by `state_ttl` or since windows have closed. Their state depends
//! on when they were made.

use std::collections::{BTreeMap, BTreeSet};

use millstream_delta::{Cut, Delta, Timestamp};
use millstream_state::Tables;

use crate::change::Change;
use crate::content::content_of;
use crate::dag::Node;
use crate::flow::Flow;
use crate::meter::Meter;
use crate::operator::{Description, Operator};
use crate::{Error, Result};

/// The operators of a flow that take over state of another flow.
#[derive(Debug)]
pub struct Succession {
    /// By node: the old flow's node whose state it takes.
    kept: Vec<Option<usize>>,
    /// By lookup place: the old flow's place.
    found: Vec<Option<usize>>,
    /// The nodes that keep their state and whose outputs so far recomputed nodes, or the readers, need.
    put_out: BTreeSet<usize>,
    /// By relation: true if its content is needed.
    needs: Vec<bool>,
    /// True if the result is that of the old flow.
    is_same: bool,
}

/// A copy of the state that a successor keeps, made by [`StateCopy::of`].
#[derive(Debug)]
pub struct StateCopy {
    /// By node of the successor: the operator's state, and its counters.
    operators: BTreeMap<usize, (Tables, Meter)>,
    /// By lookup place of the successor: the rows there, if they are in an arrangement.
    found: BTreeMap<usize, Delta>,
    /// By node of the successor: its output so far.
    put_out: BTreeMap<usize, Delta>,
    version: u64,
    now: Timestamp,
}

impl StateCopy {
    /// Copies the state of an old flow that a successor keeps. It takes time in proportion to that state.
    pub fn of(old: &Flow, succession: &Succession) -> Result<StateCopy> {
        let mut copy = StateCopy {
            operators: BTreeMap::new(),
            found: BTreeMap::new(),
            put_out: BTreeMap::new(),
            version: old.dag.version,
            now: old.dag.now,
        };
        for (place, other) in succession.kept.iter().enumerate() {
            let Some(node) = *other else { continue };
            if let Node::Operator { operator, .. } = &old.dag.nodes[node] {
                copy.operators.insert(place, (operator.save()?, old.dag.meters[node]));
            }
            if succession.put_out.contains(&place) {
                let content = content_of(&old.dag.nodes, node, &|_| {});
                let content = content.ok_or_else(|| Error::Bug("an operator lost its content".into()))??;
                copy.put_out.insert(place, Delta::from_iter(content));
            }
        }
        for (place, again) in succession.found.iter().enumerate() {
            let Some(again) = *again else { continue };
            let is_taken =
                old.dag.lookups.places()[again].sides.iter().any(|side| succession.takes(side.node));
            if let (true, Some(rows)) = (is_taken, old.dag.lookups.rows_of(again)?) {
                copy.found.insert(place, rows);
            }
        }
        Ok(copy)
    }
}

impl Succession {
    /// Returns the state that a new flow, which was never stepped, can take over from an old one. Returns
    /// `None` if it would have to read a relation again whose content is incomplete; `has_content` is true
    /// for the places of complete relations.
    ///
    /// It reads no state, so it takes no longer for a large one.
    pub fn of(new: &Flow, old: &Flow, has_content: &dyn Fn(usize) -> bool) -> Option<Succession> {
        let plans = PlanPair { new, old };
        let pairs = plans.pair_all();
        let mut succession = Succession {
            kept: pairs.clone(),
            found: plans.pair_lookups(&pairs),
            put_out: BTreeSet::new(),
            needs: vec![false; new.relations.len()],
            is_same: pairs.last().copied().flatten().is_some_and(|root| root + 1 == old.dag.nodes.len()),
        };
        loop {
            let lost = match plans.keeps_apart(&succession) {
                Some(node) => Some(node),
                None => plans.lacks_content(&mut succession),
            };
            let Some(node) = lost else { break };
            succession.kept[node] = None;
            succession.is_same = false;
        }
        for (relation, needed) in succession.needs.iter().enumerate() {
            if *needed && !has_content(relation) {
                return None;
            }
        }
        Some(succession)
    }

    /// Returns true if a node takes over state.
    pub fn keeps(&self, node: usize) -> bool {
        self.kept.get(node).is_some_and(Option::is_some)
    }

    /// Returns true if any node takes over state.
    pub fn keeps_some(&self) -> bool {
        self.kept.iter().any(Option::is_some)
    }

    /// Returns true if the state of an old flow's node is taken over.
    fn takes(&self, old: usize) -> bool {
        self.kept.contains(&Some(old))
    }

    /// Returns true if the whole flow is unchanged: then it outputs nothing.
    pub fn is_same(&self) -> bool {
        self.is_same
    }

    /// Returns true if the content of a relation is needed, by its place in [`Flow::relations`].
    pub fn needs(&self, relation: usize) -> bool {
        self.needs.get(relation).copied().unwrap_or(false)
    }
}

/// For each node of a new flow the same node of the old one.
pub(crate) type Pairs = Vec<Option<usize>>;

/// Compares two flows, and finds the nodes of the new one that can keep the state of the old one.
pub(crate) struct PlanPair<'a> {
    pub(crate) new: &'a Flow,
    pub(crate) old: &'a Flow,
}

impl PlanPair<'_> {
    /// Pairs nodes that are the same, those nearest to the root first.
    pub(crate) fn pair_all(&self) -> Pairs {
        let mut pairs = vec![None; self.new.dag.nodes.len()];
        if self.new.dag.limits != self.old.dag.limits || self.new.dag.forgets() || self.old.dag.forgets() {
            return pairs;
        }
        for place in (0..self.new.dag.nodes.len()).rev() {
            if pairs[place].is_some() {
                continue;
            }
            let plans = &self.new.plans[place];
            let same = |other: &usize| self.old.plans[*other].iter().any(|plan| plans.contains(plan));
            for other in (0..self.old.dag.nodes.len()).rev().filter(same) {
                let mut tried = pairs.clone();
                if self.pair(place, other, &mut tried) {
                    pairs = tried;
                    break;
                }
            }
        }
        pairs
    }

    /// Pairs two nodes and all nodes below them; returns false if they differ.
    fn pair(&self, place: usize, other: usize, pairs: &mut [Option<usize>]) -> bool {
        if let Some(known) = pairs[place] {
            return known == other;
        }
        pairs[place] = Some(other);
        if self.new.dag.nodes[place].properties() != self.old.dag.nodes[other].properties() {
            return false;
        }
        match (&self.new.dag.nodes[place], &self.old.dag.nodes[other]) {
            (Node::Input { relation, .. }, Node::Input { relation: other, .. }) => {
                self.new.relations[*relation] == self.old.relations[*other]
                    && self.new.batchwise[*relation] == self.old.batchwise[*other]
            }
            (
                Node::Operator { operator, inputs },
                Node::Operator { operator: other_operator, inputs: other_inputs },
            ) => {
                are_alike(operator.as_ref(), other_operator.as_ref())
                    && inputs.len() == other_inputs.len()
                    && inputs.iter().zip(other_inputs).all(|(input, other)| self.pair(*input, *other, pairs))
            }
            _ => false,
        }
    }

    /// Returns for each lookup place the old flow's place, if the same sides of the same joins look up the
    /// same rows there.
    fn pair_lookups(&self, pairs: &[Option<usize>]) -> Vec<Option<usize>> {
        let again = |found: &crate::sharing::Findables| {
            self.old.dag.lookups.places().iter().position(|other| {
                pairs[found.input] == Some(other.input)
                    && found.by == other.by
                    && found.sides.len() == other.sides.len()
                    && found.sides.iter().zip(&other.sides).all(|(side, other)| {
                        pairs[side.node] == Some(other.node)
                            && side.at == other.at
                            && side.columns == other.columns
                    })
            })
        };
        self.new.dag.lookups.places().iter().map(again).collect()
    }

    /// Returns a join that can't keep its state by itself: recomputed joins look up the same rows.
    fn keeps_apart(&self, succession: &Succession) -> Option<usize> {
        for (found, again) in self.new.dag.lookups.places().iter().zip(&succession.found) {
            let kept = found.sides.iter().filter(|side| succession.keeps(side.node));
            let all = kept.clone().count() == found.sides.len();
            if let Some(side) = kept.into_iter().next()
                && (again.is_none() || !all)
            {
                return Some(side.node);
            }
        }
        for (place, other) in self.old.dag.lookups.places().iter().enumerate() {
            let taken = succession.found.contains(&Some(place));
            let of = |side: &crate::sharing::Findable| {
                succession.kept.iter().position(|kept| *kept == Some(side.node))
            };
            if let (false, Some(node)) = (taken, other.sides.iter().find_map(of)) {
                return Some(node);
            }
        }
        None
    }

    /// Returns a node that keeps its state, but whose output so far is unknown and needed by a recomputed
    /// node. `None`: all that is needed is there.
    fn lacks_content(&self, succession: &mut Succession) -> Option<usize> {
        succession.needs.fill(false);
        succession.put_out.clear();
        let root = self.new.dag.nodes.len().saturating_sub(1);
        if !succession.is_same && !self.has_put_out(root, succession) {
            return Some(root);
        }
        for (place, node) in self.new.dag.nodes.iter().enumerate() {
            let Node::Operator { inputs, .. } = node else { continue };
            if succession.keeps(place) {
                continue;
            }
            for input in inputs {
                if let Node::Input { relation, .. } = &self.new.dag.nodes[*input] {
                    succession.needs[*relation] = true;
                    continue;
                }
                if !self.has_put_out(*input, succession) {
                    return Some(*input);
                }
            }
        }
        None
    }

    /// Records that the output so far of a node is needed, if the node keeps its state. Returns false if the output
    /// doesn't follow from the state.
    fn has_put_out(&self, node: usize, succession: &mut Succession) -> bool {
        if !succession.keeps(node) {
            return true;
        }
        // This flow has no rows yet, so it answers at once; the old flow answers in the same way.
        let follows = content_of(&self.new.dag.nodes, node, &|_| {}).is_some();
        if follows {
            succession.put_out.insert(node);
        }
        follows
    }
}

impl Flow {
    /// Returns true if two flows have the same operators of the same plan, over relations with the same
    /// properties.
    pub fn is_made_like(&self, other: &Flow) -> bool {
        let alike = |(one, other): (&Node, &Node)| {
            one.properties() == other.properties()
                && match (one, other) {
                    (Node::Input { relation, .. }, Node::Input { relation: other, .. }) => relation == other,
                    (
                        Node::Operator { operator, inputs },
                        Node::Operator { operator: other, inputs: others },
                    ) => inputs == others && are_alike(operator.as_ref(), other.as_ref()),
                    _ => false,
                }
        };
        self.relations == other.relations
            && self.batchwise == other.batchwise
            && self.dag.limits == other.dag.limits
            && self.times == other.times
            && self.dag.nodes.len() == other.dag.nodes.len()
            && self.dag.nodes.iter().zip(&other.dag.nodes).all(alike)
    }

    /// Continues where another flow was when its state was copied: kept operators take over their state, and the others
    /// read the existing content. Returns the whole answer, unless it is the old one. `contents` has the content of
    /// each relation that is needed.
    pub fn succeed(
        &mut self,
        succession: &Succession,
        copy: StateCopy,
        cut: &Cut,
        contents: &[&Delta],
    ) -> Result<Change> {
        if succession.kept.len() != self.dag.nodes.len() || self.dag.started {
            return Err(Error::Bug("a succession is of another flow".into()));
        }
        let StateCopy { operators, mut found, put_out, version, now } = copy;
        for (place, (state, meter)) in operators {
            self.dag.load_operator(place, state, meter)?;
        }
        let is_kept = |place: usize| succession.keeps(place);
        let mut given = Vec::new();
        for place in 0..self.dag.lookups.places().len() {
            let taken = self.dag.lookups.places()[place].sides.iter().any(|side| is_kept(side.node));
            given.push(taken);
            if let (true, Some(rows)) = (taken, found.remove(&place)) {
                self.dag.sharing().find_elsewhere(place, rows)?;
            }
        }
        (self.dag.version, self.dag.now) = (version, now);
        let advance = self.dag.begin_over(cut, contents, &put_out, &is_kept, &given)?;
        self.provenance.change(&self.dag.nodes, &self.relations, (cut, contents), advance)
    }
}

/// Returns true if two operators have equal descriptions, except for their state, which may be shared.
fn are_alike(one: &dyn Operator, other: &dyn Operator) -> bool {
    let what = |operator: &dyn Operator| Description { state: String::new(), ..operator.describe() };
    what(one) == what(other)
}

#[cfg(test)]
mod tests;
