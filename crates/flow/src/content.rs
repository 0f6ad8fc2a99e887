//! The result of a flow, read from the state of its operators.

use std::cell::RefCell;

use millstream_state::Spillable;

use crate::dag::Node;
use crate::flow::Flow;
use crate::operator::{Content, KeepsResult};
use crate::point_lookup::Wanted;

/// The result of a flow, as far as it follows from the state of its operators.
#[derive(Debug)]
pub struct ResultState<'a> {
    nodes: &'a [Node],
}

impl ResultState<'_> {
    /// Returns the approximate bytes of the state that a read of the whole result copies: of the first operators from the
    /// root that keep state. The rows that joins look up are not among it.
    pub fn bytes(&self) -> usize {
        let (mut left, mut bytes) = (Vec::from_iter(self.nodes.len().checked_sub(1)), 0);
        while let Some(node) = left.pop() {
            let Node::Operator { operator, inputs } = &self.nodes[node] else { continue };
            match operator.state_bytes() {
                0 => left.extend(inputs),
                some => bytes += some,
            }
        }
        bytes
    }

    /// Returns true if the last operator keeps the whole result itself.
    pub fn is_kept_by_root(&self) -> bool {
        self.nodes.len().checked_sub(1).is_some_and(|root| keeps_all(&self.nodes[root]))
    }

    /// Returns the number of rows, if it follows from the number of keys that the operators keep.
    pub fn rows(&self) -> Option<usize> {
        let mut place = self.nodes.len().checked_sub(1)?;
        loop {
            let Node::Operator { operator, inputs } = &self.nodes[place] else { return None };
            match inputs[..] {
                [input] if operator.properties().hands_on => place = input,
                _ => return operator.abilities().result?.result_rows(),
            }
        }
    }

    /// Returns the rows that a reader wants, and perhaps others, if they are found without a scan.
    pub fn wanted(&self, wanted: &Wanted) -> Content {
        wanted_of(self.nodes, self.nodes.len().checked_sub(1)?, wanted)
    }

    /// Returns the number and approximate bytes of the rows that are retained for readers alone, of closed
    /// windows.
    pub fn closed(&self) -> Option<(usize, usize)> {
        let kept = self.nodes.iter().filter_map(|node| match node {
            Node::Operator { operator, .. } => operator.abilities().windows?.closed(),
            Node::Input { .. } => None,
        });
        kept.map(|rows| (rows.num_rows(), rows.memory_bytes())).reduce(|a, b| (a.0 + b.0, a.1 + b.1))
    }
}

impl Flow {
    /// Returns the result, as far as it follows from the state of the operators.
    pub fn result(&self) -> ResultState<'_> {
        ResultState { nodes: &self.dag.nodes }
    }

    /// Returns the whole result, if it follows from the root's state.
    pub fn content(&self) -> Content {
        content_of(&self.dag.nodes, self.dag.nodes.len().checked_sub(1)?, &|_| {})
    }

    /// Makes the whole result readable from the first step on, and returns true if that is possible.
    /// Operators whose windows close retain the results of closed windows for it.
    pub fn keep_result(&mut self) -> bool {
        let Some(root) = self.dag.nodes.len().checked_sub(1) else { return false };
        let mut known: Vec<usize> = Vec::new();
        loop {
            let asked = RefCell::new(Vec::new());
            if content_of(&self.dag.nodes, root, &|node| asked.borrow_mut().push(node)).is_some() {
                return true;
            }
            let before = known.len();
            for place in asked.into_inner() {
                if let (false, Node::Operator { operator, .. }) =
                    (known.contains(&place), &mut self.dag.nodes[place])
                {
                    if let Some(retaining) = operator.as_retaining() {
                        retaining.retain_closed(true);
                    }
                    known.push(place);
                }
            }
            if known.len() == before {
                self.forget_closed();
                return false;
            }
        }
    }

    /// Stops retaining results of closed windows: the result is kept elsewhere.
    pub fn forget_closed(&mut self) {
        for node in &mut self.dag.nodes {
            if let Node::Operator { operator, .. } = node
                && let Some(retaining) = operator.as_retaining()
            {
                retaining.retain_closed(false);
            }
        }
    }

    /// Shows the parts of all operators' state that may be spilled; the callback may spill them.
    pub fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        for (node, meter) in self.dag.nodes.iter_mut().zip(&mut self.dag.meters) {
            let Node::Operator { operator, .. } = node else { continue };
            meter.spilled_bytes = 0;
            operator.each_store(&mut |store| {
                show(store);
                meter.spilled_bytes += store.spilled_bytes();
            });
        }
    }

    /// Returns the bytes of spilled state of all operators, as of the last call of [`Flow::each_store`].
    pub fn spilled_bytes(&self) -> usize {
        self.dag.meters.iter().map(|meter| meter.spilled_bytes).sum()
    }
}

/// Returns true if a node keeps its whole result itself.
pub(crate) fn keeps_all(node: &Node) -> bool {
    match node {
        Node::Input { .. } => false,
        Node::Operator { operator, .. } => operator.abilities().result.is_some_and(KeepsResult::keeps_all),
    }
}

/// Returns the content of a node of a flow. Calls `asked` with each node that is asked for its own content.
pub(crate) fn content_of(nodes: &[Node], node: usize, asked: &dyn Fn(usize)) -> Content {
    asked(node);
    match &nodes[node] {
        Node::Input { .. } => None,
        Node::Operator { operator, inputs } => {
            operator.abilities().content(&|place| content_of(nodes, inputs[place], asked))
        }
    }
}

fn wanted_of(nodes: &[Node], node: usize, wanted: &Wanted) -> Content {
    match &nodes[node] {
        Node::Input { .. } => None,
        Node::Operator { operator, inputs } => operator
            .abilities()
            .content_wanted(wanted, &|place, wanted| wanted_of(nodes, inputs[place], wanted)),
    }
}
