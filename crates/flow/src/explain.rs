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
    /// The place of the line among the others.
    pub place: NodePlace,
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
    /// The rows that the operator keeps.
    pub state: ExplainedState,
    /// The reason why no cheaper operator applies; empty for the cheapest.
    pub why: String,
    /// The queries that share the arrangements that the operator reads, if there are other queries than its
    /// own.
    pub shared_by: Vec<Arc<str>>,
    /// The number of late rows, if the operator's windows close.
    pub late: Option<u64>,
    /// The event that the operator waits for before it emits held rows, in words.
    pub waiting: Option<String>,
    /// The operator's counters.
    pub meter: Meter,
}

/// The place of an operator in a flow, and in the list of its operators from the root down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodePlace {
    /// The number of operators above this one.
    pub depth: usize,
    /// The node's number in the flow: inputs have lower numbers than the nodes that read them.
    pub node: usize,
    /// True if the operator was listed before, since several operators read it.
    pub repeated: bool,
}

/// The state of an operator: what it keeps, how that grows, and its present size.
#[derive(Clone, Debug)]
pub struct ExplainedState {
    /// The kept rows, in words; empty if the operator keeps none.
    pub text: String,
    /// The columns of the state's key, if there is one.
    pub key: Option<String>,
    /// The growth of the state.
    pub growth: Growth,
    /// The number of rows.
    pub rows: usize,
    /// The approximate bytes.
    pub bytes: usize,
    /// The numbers of forgotten keys and rows, if the operator forgets any.
    pub forgotten: Option<Counted>,
    /// The queries for which the operator and all below it are computed once, if it ends a part of several queries.
    pub kept_once_for: Vec<Arc<str>>,
}

impl ExplainedState {
    /// Returns the state of an operator that keeps nothing.
    pub fn none() -> ExplainedState {
        ExplainedState::of(String::new(), Growth::Nothing)
    }

    /// Returns an empty state with this description.
    pub fn of(text: String, growth: Growth) -> ExplainedState {
        ExplainedState {
            text,
            key: None,
            growth,
            rows: 0,
            bytes: 0,
            forgotten: None,
            kept_once_for: Vec::new(),
        }
    }

    /// Returns the same with a size.
    pub fn with_size(self, (rows, bytes): (usize, usize)) -> ExplainedState {
        ExplainedState { rows, bytes, ..self }
    }

    /// Returns true if the operator keeps no rows at all.
    pub fn is_none(&self) -> bool {
        self.text.is_empty()
    }

    /// Adds rows that are kept beside the operator, and describes these.
    pub fn put_beside(&mut self, beside: ExplainedState) {
        (self.text, self.growth) = (beside.text, beside.growth);
        self.rows += beside.rows;
        self.bytes += beside.bytes;
    }

    /// Notes that the operator forgets nothing although the query has a `state_ttl`.
    fn keep_all(&mut self) {
        if let Growth::With(_) = self.growth {
            self.text.push_str("; not expired by state_ttl");
        }
    }

    /// Adds the state to a line of EXPLAIN.
    fn write(&self, line: &mut String) {
        if !self.is_none() {
            let _ = write!(line, ", keeps {}", self.text);
        }
        if self.growth != Growth::Nothing {
            let _ = write!(line, " ({})", self.growth.text());
        }
        if !self.kept_once_for.is_empty() {
            let _ = write!(line, ", computed once for {}", self.kept_once_for.join(", "));
        }
    }
}

impl Explained {
    /// Returns a line for a step above the operators of a flow, as node number `node`.
    pub fn above(node: usize, title: String, append_only: bool) -> Explained {
        Explained {
            place: NodePlace { node, ..NodePlace::default() },
            title,
            cost: None,
            append_only,
            key: None,
            watermark: String::new(),
            state: ExplainedState::none(),
            why: String::new(),
            shared_by: Vec::new(),
            late: None,
            waiting: None,
            meter: Meter::default(),
        }
    }

    /// Returns the name and expressions, indented by the depth.
    pub fn indented(&self) -> String {
        format!("{}{}", "  ".repeat(self.place.depth), self.title)
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
        self.state.write(&mut line);
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
            place: NodePlace { depth, node: place, repeated },
            key: properties.key_text(),
            shared_by: dag.lookups.readers_of(place),
            meter: dag.meters[place],
            ..Explained::above(place, String::new(), properties.append_only)
        };
        match node {
            Node::Input { relation, about, .. } => {
                explained.title = format!("Input {}", self.relations[*relation]);
                explained.state = ExplainedState::of(about.state.clone(), about.growth.clone());
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
                explained.why = text.why;
                let abilities = operator.abilities();
                explained.state = ExplainedState {
                    text: text.state,
                    key: text.state_key,
                    growth: text.growth,
                    rows: operator.state_rows(),
                    bytes: operator.state_bytes(),
                    forgotten: abilities.expiry.map(|expiry| expiry.counted()),
                    kept_once_for: Vec::new(),
                };
                explained.late = abilities.late().map(|late| late.rows);
                explained.waiting = abilities.waiting();
                if dag.limits.state_ttl_us.is_some() && explained.state.forgotten.is_none() {
                    explained.state.keep_all();
                }
                self.found.push(explained);
                for input in inputs {
                    self.gather(*input, depth + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_describes_the_state_and_its_growth() {
        let mut explained = Explained::above(0, "Join [a = b]".into(), false);
        assert_eq!(explained.line(), "Join [a = b]: updating");
        explained.place.depth = 1;
        explained.state = ExplainedState::of("both sides".into(), Growth::With("its inputs".into()));
        explained.state.keep_all();
        let text = explained.state.growth.text();
        let line = format!("  Join [a = b]: updating, keeps both sides; not expired by state_ttl ({text})");
        assert_eq!(explained.line(), line);
        // Rows kept beside the operator are described instead, and count as well.
        explained.state = explained.state.with_size((2, 20));
        explained.state.put_beside(ExplainedState::of("its rows".into(), Growth::Nothing).with_size((3, 30)));
        let ExplainedState { text, rows, bytes, .. } = &explained.state;
        assert_eq!((text.as_str(), *rows, *bytes), ("its rows", 5, 50));
    }
}
