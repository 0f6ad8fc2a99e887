//! A flow as EXPLAIN shows it: its operators from the root down, with what is known of each.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::flow::{Flow, Node};
use crate::meter::Meter;
use crate::operator::{Cost, Counted, Growth};

/// One operator of a flow, or one of its inputs.
#[derive(Clone, Debug)]
pub struct Explained {
    /// How many operators stand above it.
    pub depth: usize,
    /// Its place in the flow: inputs have lower ones than what reads them.
    pub node: usize,
    /// Whether it was listed before: several operators read it.
    pub repeated: bool,
    /// Its name and its expressions.
    pub title: String,
    /// What an epoch costs; `None` for an input, which does nothing.
    pub cost: Option<Cost>,
    /// Whether its output only ever inserts.
    pub append_only: bool,
    /// The columns that no two rows of its output share, by name.
    pub key: Option<String>,
    /// Of an input, the watermark that it has: `ts - 5 seconds`; empty where it has none.
    pub watermark: String,
    /// What it keeps, in words; empty where it keeps nothing.
    pub state: String,
    /// The columns by which it is kept, where it is kept by key.
    pub state_key: Option<String>,
    /// How that grows.
    pub growth: Growth,
    /// Why no cheaper operator serves; empty for the cheapest.
    pub why: String,
    /// The queries that find rows in the arrangements that it reads, where there are others than its own.
    pub shared_by: Vec<Arc<str>>,
    /// How many rows it keeps.
    pub state_rows: usize,
    /// How many bytes it keeps, about.
    pub state_bytes: usize,
    /// What it has forgotten, where it forgets.
    pub counted: Option<Counted>,
    /// How many rows came for windows that had closed, where its windows close.
    pub late: Option<u64>,
    /// What it waits for to put out what it holds back, in words.
    pub waiting: Option<String>,
    /// What it has done.
    pub meter: Meter,
}

impl Explained {
    /// What stands above the operators of a flow, as their `node`th.
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

    /// Says that it forgets nothing although the query is to.
    fn keep_all(&mut self) {
        if let Growth::With(_) = self.growth {
            self.state.push_str("; state_ttl forgets none of it");
        }
    }

    /// Its name and expressions, as far to the right as it is deep.
    pub fn indented(&self) -> String {
        format!("{}{}", "  ".repeat(self.depth), self.title)
    }

    /// All that is known before it runs, as one line of EXPLAIN.
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
    /// The operators from the root down, each above what it reads.
    pub fn operators(&self) -> Vec<Explained> {
        let mut found = Vec::with_capacity(self.nodes.len());
        let mut seen = vec![false; self.nodes.len()];
        if let Some(root) = self.nodes.len().checked_sub(1) {
            self.gather(root, 0, &mut seen, &mut found);
        }
        found
    }

    /// The operators from the root down, a line each: name, expressions, cost, kind of output, key, state, why.
    pub fn explain(&self) -> Vec<String> {
        self.operators().iter().map(Explained::line).collect()
    }

    fn gather(&self, place: usize, depth: usize, seen: &mut [bool], found: &mut Vec<Explained>) {
        let node = &self.nodes[place];
        let properties = node.properties();
        let repeated = std::mem::replace(&mut seen[place], true);
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
            shared_by: self.sharing_with(place),
            state_rows: 0,
            state_bytes: 0,
            counted: None,
            late: None,
            waiting: None,
            meter: self.meters[place],
        };
        match node {
            Node::Input { relation, about, .. } => {
                explained.title = format!("Input {}", self.relations[*relation]);
                (explained.state, explained.growth) = (about.state.clone(), about.growth.clone());
                explained.why.clone_from(&about.why);
                explained.watermark.clone_from(&about.detail);
                found.push(explained);
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
                explained.counted = operator.counted();
                explained.late = operator.late().map(|late| late.rows);
                explained.waiting = operator.waiting();
                if self.limits.state_ttl_us.is_some() && explained.counted.is_none() {
                    explained.keep_all();
                }
                found.push(explained);
                for input in inputs {
                    self.gather(*input, depth + 1, seen, found);
                }
            }
        }
    }
}
