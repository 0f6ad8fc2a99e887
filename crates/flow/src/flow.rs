//! A compiled query: operators in topological order.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millstream_delta::{Cut, Delta};

use crate::operator::{Content, Cost, Growth, Operator, Properties};
use crate::{Error, Result, failure};

/// One node of the DAG.
#[derive(Debug)]
pub(crate) enum Node {
    /// The changes of a relation, by its place in [`Flow::relations`].
    Input { relation: usize, properties: Properties },
    /// An operator over the outputs of earlier nodes.
    Operator { operator: Box<dyn Operator>, inputs: Vec<usize> },
}

impl Node {
    pub(crate) fn properties(&self) -> &Properties {
        match self {
            Node::Input { properties, .. } => properties,
            Node::Operator { operator, .. } => operator.properties(),
        }
    }
}

/// What an epoch changes of a query's answer.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Of its result.
    pub rows: Delta,
    /// Of its errors, which have the columns of [`crate::ERRORS`].
    pub errors: Delta,
}

/// A query, compiled once and stepped an epoch at a time.
#[derive(Debug)]
pub struct Flow {
    pub(crate) relations: Vec<Arc<str>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) started: bool,
}

impl Flow {
    /// The relations it reads, each once.
    pub fn relations(&self) -> &[Arc<str>] {
        &self.relations
    }

    /// The columns of its result.
    pub fn schema(&self) -> Result<&SchemaRef> {
        Ok(&self.root()?.properties().schema)
    }

    /// Whether its result only ever gains rows.
    pub fn append_only(&self) -> Result<bool> {
        Ok(self.root()?.properties().append_only)
    }

    /// The dearest operator's cost.
    pub fn cost(&self) -> Cost {
        self.nodes.iter().map(|node| node.properties().cost).max().unwrap_or(Cost::Delta)
    }

    /// Takes one epoch: `inputs` gives the delta of each of [`Flow::relations`], in their order. The first step
    /// runs every operator, so that a query over no rows has its answer too. After an error the flow must not be
    /// stepped again.
    pub fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Change> {
        let first = !std::mem::replace(&mut self.started, true);
        let mut outputs: Vec<Delta> = Vec::with_capacity(self.nodes.len());
        let mut failures = Vec::new();
        for node in &mut self.nodes {
            let output = match node {
                Node::Input { relation, .. } => (*inputs[*relation]).clone(),
                Node::Operator { operator, inputs } => {
                    let given: Vec<&Delta> = inputs.iter().map(|input| &outputs[*input]).collect();
                    if first || given.iter().any(|delta| !delta.is_empty()) {
                        let output = operator.step(cut, &given)?;
                        if !output.failures.is_empty() {
                            let name = operator.describe().name;
                            failures.extend(output.failures.into_iter().map(|failure| (name, failure)));
                        }
                        output.rows
                    } else {
                        Delta::default()
                    }
                }
            };
            outputs.push(output);
        }
        let errors = failure::delta(failures.iter().map(|(name, failure)| (*name, failure)))?;
        Ok(Change { rows: outputs.pop().unwrap_or_default(), errors })
    }

    /// The whole result, where the root keeps it.
    pub fn content(&self) -> Content {
        self.content_of(self.nodes.len().checked_sub(1)?)
    }

    fn content_of(&self, node: usize) -> Content {
        match &self.nodes[node] {
            Node::Input { .. } => None,
            Node::Operator { operator, inputs } => operator.content(&|place| self.content_of(inputs[place])),
        }
    }

    /// How many rows all operators keep.
    pub fn state_rows(&self) -> usize {
        self.operators().map(Operator::state_rows).sum()
    }

    /// How many bytes all operators keep, about.
    pub fn state_bytes(&self) -> usize {
        self.operators().map(Operator::state_bytes).sum()
    }

    /// The operators from the root down, a line each: name, expressions, cost, kind of output, state, why.
    pub fn explain(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.nodes.is_empty() {
            self.explain_node(self.nodes.len() - 1, 0, &mut lines);
        }
        lines
    }

    fn explain_node(&self, node: usize, depth: usize, lines: &mut Vec<String>) {
        let indent = "  ".repeat(depth);
        let node = &self.nodes[node];
        let kind = if node.properties().append_only { "append-only" } else { "updating" };
        match node {
            Node::Input { relation, .. } => {
                lines.push(format!("{indent}Input {}: {kind}", self.relations[*relation]));
            }
            Node::Operator { operator, inputs } => {
                let text = operator.describe();
                let mut line = format!("{indent}{}", text.name);
                if !text.detail.is_empty() {
                    let _ = write!(line, " [{}]", text.detail);
                }
                let _ = write!(line, ": cost {}, {kind}", operator.properties().cost.name());
                if let Some(key) = key_text(operator.properties()) {
                    let _ = write!(line, ", key {key}");
                }
                if !text.state.is_empty() {
                    let _ = write!(line, ", keeps {}", text.state);
                }
                match text.growth {
                    Growth::Nothing => {}
                    Growth::Bounded => line.push_str(" (bounded)"),
                    Growth::With(what) => {
                        let _ = write!(line, " (unbounded: grows with {what})");
                    }
                }
                if !text.why.is_empty() {
                    let _ = write!(line, ", because {}", text.why);
                }
                lines.push(line);
                for input in inputs {
                    self.explain_node(*input, depth + 1, lines);
                }
            }
        }
    }

    fn operators(&self) -> impl Iterator<Item = &dyn Operator> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Operator { operator, .. } => Some(operator.as_ref()),
            Node::Input { .. } => None,
        })
    }

    fn root(&self) -> Result<&Node> {
        self.nodes.last().ok_or_else(|| Error::Bug("a flow without operators".into()))
    }
}

/// The columns of an operator's key, for EXPLAIN.
fn key_text(properties: &Properties) -> Option<String> {
    let names: Vec<&str> =
        properties.key.as_ref()?.iter().map(|at| properties.schema.field(*at).name().as_str()).collect();
    Some(if names.is_empty() { "()".into() } else { format!("({})", names.join(", ")) })
}
