//! The result that a flow's operators keep, for those who read it.

use std::cell::RefCell;

use millstream_state::Store;

use crate::flow::{Flow, Node};
use crate::operator::{Content, Operator};
use crate::point::Wanted;

impl Flow {
    /// The whole result, where the root keeps it.
    pub fn content(&self) -> Content {
        self.content_of(self.nodes.len().checked_sub(1)?, &|_| {})
    }

    /// All that a node has put out so far, in sum, where that follows from what is kept.
    pub(crate) fn put_out(&self, node: usize) -> Content {
        self.content_of(node, &|_| {})
    }

    /// Its part of a node. Tells of each node that is asked for its own.
    fn content_of(&self, node: usize, asked: &dyn Fn(usize)) -> Content {
        asked(node);
        match &self.nodes[node] {
            Node::Input { .. } => None,
            Node::Operator { operator, inputs } => {
                operator.content(&|place| self.content_of(inputs[place], asked))
            }
        }
    }

    /// Keeps the whole result from the first step on, and says so, where operators can: those whose windows close keep
    /// what they gave of these as well.
    pub fn keep_result(&mut self) -> bool {
        let Some(root) = self.nodes.len().checked_sub(1) else { return false };
        let mut known: Vec<usize> = Vec::new();
        loop {
            let asked = RefCell::new(Vec::new());
            if self.content_of(root, &|node| asked.borrow_mut().push(node)).is_some() {
                return true;
            }
            let before = known.len();
            for place in asked.into_inner() {
                if let (false, Node::Operator { operator, .. }) =
                    (known.contains(&place), &mut self.nodes[place])
                {
                    operator.keep_closed(true);
                    known.push(place);
                }
            }
            if known.len() == before {
                self.forget_closed();
                return false;
            }
        }
    }

    /// Keeps nothing any more of windows that have closed: the result is kept elsewhere.
    pub fn forget_closed(&mut self) {
        for node in &mut self.nodes {
            if let Node::Operator { operator, .. } = node {
                operator.keep_closed(false);
            }
        }
    }

    /// How many rows are kept of windows that have closed, for readers alone, and about how many bytes these take.
    pub fn closed(&self) -> Option<(usize, usize)> {
        let kept = self.stateful().filter_map(Operator::closed);
        kept.map(|rows| (rows.num_rows(), rows.memory_bytes())).reduce(|a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Shows what all operators keep rows in that may be read from files; who spills some of them says it so.
    pub fn each_store(&mut self, show: &mut dyn FnMut(&mut Store)) {
        for (node, meter) in self.nodes.iter_mut().zip(&mut self.meters) {
            let Node::Operator { operator, .. } = node else { continue };
            meter.spilled_bytes = 0;
            operator.each_store(&mut |store| {
                show(store);
                meter.spilled_bytes += store.spilled_bytes();
            });
        }
    }

    /// How many bytes of all operators' rows are in files, as of the last time that these were shown.
    pub fn spilled_bytes(&self) -> usize {
        self.meters.iter().map(|meter| meter.spilled_bytes).sum()
    }

    /// The rows of the result that a reader wants, and perhaps others, where they are found without looking at all.
    pub fn content_wanted(&self, wanted: &Wanted) -> Content {
        self.wanted_of(self.nodes.len().checked_sub(1)?, wanted)
    }

    fn wanted_of(&self, node: usize, wanted: &Wanted) -> Content {
        match &self.nodes[node] {
            Node::Input { .. } => None,
            Node::Operator { operator, inputs } => {
                operator.content_wanted(wanted, &|place, wanted| self.wanted_of(inputs[place], wanted))
            }
        }
    }
}
