//! A flow as EXPLAIN shows it: its operators from the root down, with their properties.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::dag::{Dag, Node};
use crate::flow::Flow;
use crate::meter::Meter;
use crate::operator::{Cost, Counted, Growth};

/// One operator of a flow, or one of its inputs.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The number of operators above this one.
    pub depth: usize,
    /// The node's number in the flow: inputs have lower numbers than the nodes that read them.
    pub node: usize,
    /// True if the operator was listed before, since several operators read it.
    pub repeated: bool,
    /// The operator's name and expressions.
    pub title: String,
    /// The cost of an epoch; `None` for an input, which does nothing.
    pub cost: Option<Cost>,
    /// True if the output is append-only.
    pub append_only: bool,
    /// The names of columns that together are unique in the output.
    pub key: Option<String>,
    /// The watermark of an input, such as `ts - 5 seconds`; empty if there is none.
    pub watermark: String,
    /// The operator's state, in words; empty if it keeps none.
    pub state: String,
    /// The columns of the state's key, if there is one.
    pub state_key: Option<String>,
    /// The growth of the state.
    pub growth: Growth,
    /// The reason why no cheaper operator applies; empty for the cheapest.
    pub why: String,
    /// The queries that share the arrangements that the operator reads, if there are other queries than its
    /// own.
    pub shared_by: Vec<Arc<str>>,
    /// The number of rows of state.
    pub state_rows: usize,
    /// The approximate bytes of state.
    pub state_bytes: usize,
    /// The numbers of forgotten keys and rows, if the operator forgets any.
    pub counted: Option<Counted>,
    /// The number of late rows, if the operator's windows close.
    pub late: Option<u64>,
    /// The event that the operator waits for before it emits held rows, in words.
    pub waiting: Option<String>,
    /// The operator's counters.
    pub meter: Meter,
}

impl Explained {
    /// Returns a line for a step above the operators of a flow, as node number `node`.
    pub fn above(node: usize, title: String, append_only: bool) -> Explained {
        Explained {
            depth: 0,
            node,
            repeated: false,
            title,
            cost: None,
            append_only,
            key: None,
            watermark: String::new(),
            state: String::new(),
            state_key: None,
            growth: Growth::Nothing,
            why: String::new(),
            shared_by: Vec::new(),
            state_rows: 0,
            state_bytes: 0,
            counted: None,
            late: None,
            waiting: None,
            meter: Meter::default(),
        }
    }

    /// Notes that the operator forgets nothing although the query has a `state_ttl`.
    fn keep_all(&mut self) {
        if let Growth::With(_) = self.growth {
            self.state.push_str("; not expired by state_ttl");
        }
    }

    /// Returns the name and expressions, indented by the depth.
    pub fn indented(&self) -> String {
        format!("{}{}", "  ".repeat(self.depth), self.title)
    }

    /// Returns the static properties as one line of EXPLAIN.
    pub fn line(&self) -> String {
        let mut line = self.indented();
        line.push_str(": ");
        if let Some(cost) = self.cost {
            let _ = write!(line, "cost {}, ", cost.name());
        }
        line.push_str(if self.append_only { "append-only" } else { "updating" });
        if let Some(key) = &self.key {
            let _ = write!(line, ", key {key}");
        }
        if !self.watermark.is_empty() {
            let _ = write!(line, ", watermark {}", self.watermark);
        }
        if !self.state.is_empty() {
            let _ = write!(line, ", keeps {}", self.state);
        }
        if self.growth != Growth::Nothing {
            let _ = write!(line, " ({})", self.growth.text());
        }
        if !self.why.is_empty() {
            let _ = write!(line, ", because {}", self.why);
        }
        line
    }
}

impl Flow {
    /// Returns the operators from the root down, each above its inputs.
    pub fn operators(&self) -> Vec<Explained> {
        let (dag, relations) = (&self.dag, &self.relations[..]);
        let count = dag.nodes.len();
        let mut listing =
            Listing { dag, relations, seen: vec![false; count], found: Vec::with_capacity(count) };
        if let Some(root) = count.checked_sub(1) {
            listing.gather(root, 0);
        }
        listing.found
    }

    /// Returns a line for each operator, from the root down: name, expressions, cost, kind of output, key,
    /// state, why.
    pub fn explain(&self) -> Vec<String> {
        self.operators().iter().map(Explained::line).collect()
    }
}

/// Lists the nodes of a flow for EXPLAIN.
struct Listing<'a> {
    dag: &'a Dag,
    relations: &'a [Arc<str>],
    /// For each node, true if it is listed.
    seen: Vec<bool>,
    found: Vec<Explained>,
}

impl Listing<'_> {
    /// Lists a node and those below it.
    fn gather(&mut self, place: usize, depth: usize) {
        let dag = self.dag;
        let node = &dag.nodes[place];
        let properties = node.properties();
        let repeated = std::mem::replace(&mut self.seen[place], true);
        let mut explained = Explained {
            depth,
            node: place,
            repeated,
            title: String::new(),
            cost: None,
            append_only: properties.append_only,
            key: properties.key_text(),
            watermark: String::new(),
            state: String::new(),
            state_key: None,
            growth: Growth::Nothing,
            why: String::new(),
            shared_by: dag.lookups.readers_of(place),
            state_rows: 0,
            state_bytes: 0,
            counted: None,
            late: None,
            waiting: None,
            meter: dag.meters[place],
        };
        match node {
            Node::Input { relation, about, .. } => {
                explained.title = format!("Input {}", self.relations[*relation]);
                (explained.state, explained.growth) = (about.state.clone(), about.growth.clone());
                explained.why.clone_from(&about.why);
                explained.watermark.clone_from(&about.detail);
                self.found.push(explained);
            }
            Node::Operator { operator, inputs } => {
                let text = operator.describe();
                explained.title = match text.detail.is_empty() {
                    true => text.name.to_string(),
                    false => format!("{} [{}]", text.name, text.detail),
                };
                explained.cost = Some(properties.cost);
                explained.state_key = text.state_key;
                (explained.state, explained.growth, explained.why) = (text.state, text.growth, text.why);
                explained.state_rows = operator.state_rows();
                explained.state_bytes = operator.state_bytes();
                let abilities = operator.abilities();
                explained.counted = abilities.expiry.map(|expiry| expiry.counted());
                explained.late = abilities.late().map(|late| late.rows);
                explained.waiting = abilities.waiting();
                if dag.limits.state_ttl_us.is_some() && explained.counted.is_none() {
                    explained.keep_all();
                }
                self.found.push(explained);
                for input in inputs {
                    self.gather(*input, depth + 1);
                }
            }
        }
    }
}
