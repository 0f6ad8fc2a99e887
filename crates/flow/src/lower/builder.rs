//! The nodes of a flow while its plan is lowered, and the event times of their columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;

use super::Relation;
use crate::arrangement::By;
use crate::dag::{Dag, Node};
use crate::event_time::Times;
use crate::flow::Flow;
use crate::limits::Limits;
use crate::operator::{Description, Operator, Properties};
use crate::operators::state_ttl::StateTtl;
use crate::operators::stateless::{Stage, Stateless};
use crate::parallelism::Threads;
use crate::provenance::Provenance;
use crate::sharing::{Findable, Findables, Lookups};

/// Adds nodes to a flow, each above its inputs.
pub(super) struct FlowBuilder {
    limits: Limits,
    nodes: Vec<Node>,
    /// Each relation, with true if its batches are taken as they end.
    relations: Vec<(Arc<str>, bool)>,
    /// The node of each relation.
    scans: HashMap<(Arc<str>, bool), usize>,
    /// The node for some columns of an input.
    columns: HashMap<(usize, Vec<usize>), usize>,
    /// The sides of joins that look rows up by key.
    findables: Vec<Findables>,
    /// The event times of the columns of a node, if some are known.
    times: HashMap<usize, Times>,
}

impl FlowBuilder {
    /// Returns a builder without nodes.
    pub(super) fn new(limits: Limits) -> FlowBuilder {
        FlowBuilder {
            limits,
            nodes: Vec::new(),
            relations: Vec::new(),
            scans: HashMap::new(),
            columns: HashMap::new(),
            findables: Vec::new(),
            times: HashMap::new(),
        }
    }

    /// Adds an operator and returns its node.
    pub(super) fn push(&mut self, operator: impl Operator + 'static, inputs: Vec<usize>) -> usize {
        self.push_boxed(Box::new(operator), inputs)
    }

    /// Adds a boxed operator and returns its node.
    pub(super) fn push_boxed(&mut self, mut operator: Box<dyn Operator>, inputs: Vec<usize>) -> usize {
        if let Some(ttl_us) = self.limits.state_ttl_us {
            let of = |input: &usize| {
                let properties = self.properties(*input);
                (properties.schema.clone(), properties.append_only)
            };
            operator = StateTtl::around(operator, inputs.iter().map(of).collect(), ttl_us);
        }
        self.nodes.push(Node::Operator { operator, inputs });
        self.nodes.len() - 1
    }

    /// Returns the node of a relation's changes. If `batchwise`, it takes the batches of a window as they end.
    pub(super) fn input(&mut self, relation: Relation, batchwise: bool) -> usize {
        let batchwise = batchwise && relation.window.is_some();
        if let Some(input) = self.scans.get(&(relation.name.clone(), batchwise)) {
            return *input;
        }
        let properties = Properties {
            append_only: relation.append_only || batchwise,
            key: relation.key,
            ..Properties::of(relation.schema)
        };
        let mut times: Times = vec![None; properties.schema.fields().len()];
        let lateness_us = self.limits.allowed_lateness_us;
        relation.times.into_iter().for_each(|(at, time)| times[at] = Some(time.less(lateness_us)));
        self.set_times(self.nodes.len(), times);
        self.relations.push((relation.name.clone(), batchwise));
        let about = if batchwise { Description::default() } else { relation.about };
        self.nodes.push(Node::Input { relation: self.relations.len() - 1, properties, about });
        self.scans.insert((relation.name, batchwise), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Returns the node of some columns of an input, whose rows have this schema then. The key is of the input's columns.
    pub(super) fn columns_of(
        &mut self,
        input: usize,
        columns: Vec<usize>,
        (schema, key): (SchemaRef, Option<Vec<usize>>),
    ) -> usize {
        if let Some(known) = self.columns.get(&(input, columns.clone())) {
            return *known;
        }
        let mut operator = Stateless::new(schema.clone(), self.append_only(input)).with_key(key);
        operator.push(Stage::Columns(columns.clone(), schema.clone()), schema);
        let node = self.push(operator, vec![input]);
        let times = self.times_of(input);
        self.set_times(node, columns.iter().map(|at| times[*at].clone()).collect());
        self.columns.insert((input, columns), node);
        node
    }

    /// Returns all nodes so far.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the properties of a node.
    pub(super) fn properties(&self, node: usize) -> &Properties {
        self.nodes[node].properties()
    }

    /// Returns true if the output of a node is append-only.
    pub(super) fn append_only(&self, node: usize) -> bool {
        self.properties(node).append_only
    }

    /// Returns the event times of a node's columns.
    pub(super) fn times_of(&self, node: usize) -> Times {
        let none = || vec![None; self.properties(node).schema.fields().len()];
        self.times.get(&node).cloned().unwrap_or_else(none)
    }

    /// Sets the event times of a node's columns.
    pub(super) fn set_times(&mut self, node: usize, times: Times) {
        if times.iter().any(Option::is_some) {
            self.times.insert(node, times);
        }
    }

    /// Returns true if a column of any node has an event time.
    pub(super) fn has_times(&self) -> bool {
        !self.times.is_empty()
    }

    /// Records that a side of a join looks the rows of its input up by plain columns, so that it may share an
    /// arrangement. `side` is the join and the number of its side, and `keys` are the places of the columns.
    pub(super) fn look_up(&mut self, side: (usize, usize), input: usize, keys: &[usize], nulls_match: bool) {
        let known = self.columns.iter().find(|(_, node)| **node == input).map(|(of, _)| of.clone());
        let (input, columns) = known.unwrap_or_else(|| {
            let count = self.properties(input).schema.fields().len();
            (input, (0..count).collect())
        });
        let by = By { keys: keys.iter().map(|at| columns[*at]).collect(), nulls_match };
        let side = Findable { node: side.0, at: side.1, columns };
        match self.findables.iter_mut().find(|found| found.input == input && found.by == by) {
            Some(found) => found.sides.push(side),
            None => self.findables.push(Findables { input, by, sides: vec![side], kept: None }),
        }
    }

    /// Replaces a join by an operator around it, whose rows can't be in an arrangement.
    pub(super) fn wrap_join(
        &mut self,
        join: usize,
        wrapper: impl FnOnce(Box<dyn Operator>) -> Box<dyn Operator>,
    ) {
        if let Node::Operator { operator, inputs } = self.nodes.remove(join) {
            self.nodes.insert(join, Node::Operator { operator: wrapper(operator), inputs });
        }
        self.findables.iter_mut().for_each(|found| found.sides.retain(|side| side.node != join));
        self.findables.retain(|found| !found.sides.is_empty());
    }

    /// Returns the flow whose result is that of `root`, without the nodes that `root` doesn't need. `plans`
    /// are parts of the plan, each with its node.
    pub(super) fn finish(
        self,
        root: usize,
        plans: impl Iterator<Item = (LogicalPlan, usize)>,
        threads: Threads,
    ) -> Flow {
        let times = self.times_of(root).into_iter().enumerate();
        let times = times.filter_map(|(at, time)| Some((at, time?))).collect();
        let mut needed = vec![false; self.nodes.len()];
        needed[root] = true;
        for place in (0..=root).rev() {
            if let (true, Node::Operator { inputs, .. }) = (needed[place], &self.nodes[place]) {
                inputs.iter().for_each(|input| needed[*input] = true);
            }
        }
        let event_column = |place: usize| self.times_of(place).iter().position(Option::is_some);
        let all = self.nodes.iter().enumerate().filter(|(place, _)| needed[*place]);
        let event_columns: Vec<Option<usize>> = all
            .map(|(place, node)| matches!(node, Node::Input { .. }).then(|| event_column(place)).flatten())
            .collect();
        let (mut places, mut relations, mut nodes) = (HashMap::new(), Vec::new(), Vec::new());
        for (place, mut node) in self.nodes.into_iter().enumerate().filter(|(place, _)| needed[*place]) {
            match &mut node {
                Node::Input { relation, .. } => {
                    relations.push(self.relations[*relation].clone());
                    *relation = relations.len() - 1;
                }
                Node::Operator { inputs, .. } => inputs.iter_mut().for_each(|input| *input = places[input]),
            }
            places.insert(place, nodes.len());
            nodes.push(node);
        }
        let mut plans_of = vec![Vec::new(); nodes.len()];
        for (plan, node) in plans {
            if let Some(place) = places.get(&node) {
                plans_of[*place].push(plan);
            }
        }
        let (relations, batchwise) = relations.into_iter().unzip();
        let provenance = Provenance::of(&nodes, event_columns);
        let findables = self.findables.into_iter().filter_map(|found| found.placed(&places));
        let dag = Dag::new(nodes, Lookups::new(findables.collect()), self.limits, threads);
        Flow { relations, batchwise, plans: plans_of, times, provenance, dag }
    }
}
