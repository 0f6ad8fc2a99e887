//! The operators of a flow in topological order, stepped an epoch at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use millstream_delta::{Cut, Delta, Timestamp};

use crate::failing_rows::FailingRows;
use crate::failure::Failure;
use crate::late_rows::{self, Late, Without};
use crate::limits::Limits;
use crate::meter::Meter;
use crate::operator::{Description, Operator, Output, Properties};
use crate::parallelism::Threads;
use crate::sharing::{Findables, Lookups, SharedArrangement, Sharing};
use crate::{Error, Result};

/// One node of the DAG.
#[derive(Debug)]
pub(crate) enum Node {
    /// The changes of a relation, by its place among those of the flow.
    Input { relation: usize, properties: Properties, about: Description },
    /// An operator over the outputs of earlier nodes.
    Operator { operator: Box<dyn Operator>, inputs: Vec<usize> },
}

impl Node {
    /// Returns the properties of the node's output.
    pub(crate) fn properties(&self) -> &Properties {
        match self {
            Node::Input { properties, .. } => properties,
            Node::Operator { operator, .. } => operator.properties(),
        }
    }

    /// Returns true if the node reads the one at a place.
    pub(crate) fn reads(&self, place: usize) -> bool {
        matches!(self, Node::Operator { inputs, .. } if inputs.contains(&place))
    }
}

/// The output of one step of a flow.
pub(crate) struct Advance {
    /// The change of the result.
    pub(crate) rows: Delta,
    /// The failures, each with the name of its operator.
    pub(crate) failures: Vec<(&'static str, Failure)>,
    /// The failures as the rows that fail.
    pub(crate) failing: Vec<FailingRows>,
    /// The number of further changed rows of the result.
    pub(crate) left_out: u64,
    /// The late rows, each with the place and the name of its operator.
    pub(crate) late: Vec<(usize, &'static str, Late)>,
}

/// The outputs of a flow's nodes in one step.
#[derive(Default)]
struct Stepped {
    outputs: Vec<Delta>,
    failures: Vec<(&'static str, Failure)>,
    failing: Vec<FailingRows>,
    left_out: u64,
    late: Vec<(usize, &'static str, Late)>,
}

impl Stepped {
    fn take(&mut self, place: usize, (name, output): (&'static str, Output)) {
        self.left_out += output.left_out;
        self.failures.extend(output.failures.into_iter().map(|failure| (name, failure)));
        self.failing.extend(output.failing.into_iter().map(|failing| failing.at(place, name)));
        self.late.extend(output.late.into_iter().map(|late| (place, name, late)));
        self.outputs[place] = output.rows;
    }
}

/// The inputs of one step of a flow's nodes.
struct Step<'a> {
    cut: &'a Cut,
    /// True if every operator runs.
    first: bool,
    /// The deltas by relation.
    inputs: &'a [&'a Delta],
    /// The places of the nodes whose rows nobody reads.
    unread: &'a [usize],
    /// The rows to leave out of the operators' inputs.
    without: &'a Without,
    limits: &'a Limits,
}

impl Step<'_> {
    /// Steps the node at a place after its inputs. The returned name is that of an operator with failures or
    /// late rows.
    fn of(
        &self,
        place: usize,
        node: &mut Node,
        meter: &mut Meter,
        all: &Stepped,
    ) -> Result<(&'static str, Output)> {
        let (operator, inputs) = match node {
            Node::Input { relation, properties, .. } => {
                // A table may have gained columns behind those that the query knows.
                let known = properties.schema.fields().len();
                let delta = self.inputs[*relation].first_columns(known)?.into_owned();
                if !delta.is_empty() {
                    meter.steps += 1;
                    meter.rows_out += delta.num_rows() as u64;
                }
                return Ok(("", delta.into()));
            }
            Node::Operator { operator, inputs } => (operator, inputs),
        };
        let unread = self.unread.contains(&place);
        if unread && all.left_out > 0 {
            meter.hand_on(all.left_out);
            return Ok(("", Output::default()));
        }
        let given =
            inputs.iter().enumerate().map(|(at, input)| self.given((place, at), &all.outputs[*input]));
        let given = given.collect::<Result<Vec<_>>>()?;
        let given: Vec<&Delta> = given.iter().map(AsRef::as_ref).collect();
        let is_due = || operator.properties().slides || operator.abilities().is_due(self.cut);
        if !self.first && given.iter().all(|delta| delta.is_empty()) && !is_due() {
            return Ok(("", Output::default()));
        }
        let begun = Instant::now();
        let output = match unread {
            true => operator.step_unread(self.cut, &given),
            false => operator.step(self.cut, &given),
        };
        let output = output
            .and_then(|output| self.limits.check_output(output.rows.num_rows()).map(|()| output))
            .map_err(|error| error.of_operator(operator.describe().name))?;
        let rows = given.iter().map(|delta| delta.num_rows() as u64).sum();
        meter.count(rows, &output, begun);
        let nameless = output.failures.is_empty() && output.failing.is_empty() && output.late.is_empty();
        Ok((if nameless { "" } else { operator.describe().name }, output))
    }

    /// Returns the delta of an input as an operator gets it.
    fn given<'a>(&self, at: (usize, usize), delta: &'a Delta) -> Result<Cow<'a, Delta>> {
        match self.without.get(&at) {
            Some(gone) => Ok(Cow::Owned(late_rows::less(delta, gone)?)),
            None => Ok(Cow::Borrowed(delta)),
        }
    }
}

/// Groups the places of nodes into waves: a node's inputs are in earlier waves.
fn waves(nodes: &[Node]) -> Arc<[Vec<usize>]> {
    let mut waves: Vec<Vec<usize>> = Vec::new();
    let mut numbers = Vec::with_capacity(nodes.len());
    for (place, node) in nodes.iter().enumerate() {
        let number = match node {
            Node::Input { .. } => 0,
            Node::Operator { inputs, .. } => {
                inputs.iter().map(|input| numbers[*input] + 1).max().unwrap_or(0)
            }
        };
        numbers.push(number);
        if number == waves.len() {
            waves.push(Vec::new());
        }
        waves[number].push(place);
    }
    waves.into()
}

/// The nodes of a flow, with their state.
#[derive(Debug)]
pub(crate) struct Dag {
    pub(crate) nodes: Vec<Node>,
    /// The nodes in waves: nodes of one wave don't read one another.
    waves: Arc<[Vec<usize>]>,
    pub(crate) threads: Threads,
    /// The counters of each node, by its place.
    pub(crate) meters: Vec<Meter>,
    pub(crate) limits: Limits,
    pub(crate) started: bool,
    /// The places where joins look rows up by key, which may share arrangements.
    pub(crate) lookups: Lookups,
    /// The number of steps so far.
    pub(crate) version: u64,
    /// The newest batch time of a step.
    pub(crate) now: Timestamp,
    reported: Reported,
}

/// The counters as of the last report of work; without any before the first.
#[derive(Debug, Default)]
struct Reported {
    version: u64,
    meters: Vec<Meter>,
}

impl Dag {
    /// Returns nodes that were not stepped yet, each after its inputs.
    pub(crate) fn new(nodes: Vec<Node>, lookups: Lookups, limits: Limits, threads: Threads) -> Dag {
        Dag {
            waves: waves(&nodes),
            threads,
            meters: vec![Meter::default(); nodes.len()],
            nodes,
            limits,
            started: false,
            lookups,
            version: 0,
            now: Timestamp::default(),
            reported: Reported::default(),
        }
    }

    /// Passes the work of each node since the last call to `each`, with the node's place. The first call passes nothing.
    pub(crate) fn report(&mut self, mut each: impl FnMut(usize, Meter)) {
        if self.reported.meters.is_empty() {
            self.reported = Reported { version: self.version, meters: self.meters.clone() };
        }
        if self.reported.version == self.version {
            return;
        }
        self.reported.version = self.version;
        for (place, (before, now)) in self.reported.meters.iter_mut().zip(&self.meters).enumerate() {
            if before.steps != now.steps {
                each(place, now.since(before));
                *before = *now;
            }
        }
    }

    /// Returns the last node, whose output is the flow's.
    pub(crate) fn root(&self) -> Result<&Node> {
        self.nodes.last().ok_or_else(|| Error::Bug("a flow without operators".into()))
    }

    /// Returns all operators.
    pub(crate) fn operators(&self) -> impl Iterator<Item = &dyn Operator> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Operator { operator, .. } => Some(operator.as_ref()),
            Node::Input { .. } => None,
        })
    }

    /// Returns true if operators forget idle keys or closed windows.
    pub(crate) fn forgets(&self) -> bool {
        let mut all = self.operators().map(|operator| operator.abilities());
        all.any(|of| of.expiry.is_some() || of.windows.is_some())
    }

    /// Returns a view that moves the rows that joins look up.
    pub(crate) fn sharing(&mut self) -> Sharing<'_> {
        self.lookups.sharing(&mut self.nodes)
    }

    /// Steps one epoch. Returns the failures one by one, each with its operator's name. If not `read`, rows of
    /// the result may be left out.
    pub(crate) fn advance(&mut self, cut: &Cut, inputs: &[&Delta], read: bool) -> Result<Advance> {
        self.advance_without(cut, inputs, read, &Without::new())
    }

    /// Does the same without some rows of the operators' inputs.
    pub(crate) fn advance_without(
        &mut self,
        cut: &Cut,
        inputs: &[&Delta],
        read: bool,
        without: &Without,
    ) -> Result<Advance> {
        let unread = if read { Vec::new() } else { self.unread() };
        let first = !std::mem::replace(&mut self.started, true);
        self.version += 1;
        self.now = self.now.max(cut.now);
        let mut all = Stepped { outputs: vec![Delta::default(); self.nodes.len()], ..Stepped::default() };
        for wave in self.waves.clone().iter() {
            let step = Step { cut, first, inputs, unread: &unread, without, limits: &self.limits };
            if self.is_busy(wave, &all.outputs) {
                let nodes = self.nodes.iter_mut().zip(&mut self.meters).enumerate();
                let nodes = nodes.filter(|(place, _)| wave.binary_search(place).is_ok()).collect();
                let done =
                    self.threads.spread(nodes, |(place, (node, meter))| step.of(place, node, meter, &all));
                for (place, done) in wave.iter().zip(done) {
                    all.take(*place, done?);
                }
            } else {
                for place in wave {
                    let done = step.of(*place, &mut self.nodes[*place], &mut self.meters[*place], &all)?;
                    all.take(*place, done);
                }
            }
            for place in wave {
                for findables in self.lookups.places().iter().filter(|findables| findables.input == *place) {
                    if let Some(kept) = &findables.kept {
                        kept.stage(first, self.version, cut, &all.outputs[*place], &self.threads)?;
                    }
                }
            }
        }
        self.settle(&all.outputs)?;
        let Stepped { mut outputs, failures, failing, left_out, late } = all;
        Ok(Advance { rows: outputs.pop().unwrap_or_default(), failures, failing, left_out, late })
    }

    /// Runs the first step of a flow with loaded operators. These aren't stepped: `put_out` has their outputs
    /// so far. `found` is true for each lookup place whose arrangement already has its rows.
    pub(crate) fn begin_over(
        &mut self,
        cut: &Cut,
        inputs: &[&Delta],
        put_out: &BTreeMap<usize, Delta>,
        is_kept: &dyn Fn(usize) -> bool,
        found: &[bool],
    ) -> Result<Advance> {
        self.started = true;
        self.version += 1;
        self.now = self.now.max(cut.now);
        let mut all = Stepped { outputs: vec![Delta::default(); self.nodes.len()], ..Stepped::default() };
        let without = Without::new();
        for wave in self.waves.clone().iter() {
            let step =
                Step { cut, first: true, inputs, unread: &[], without: &without, limits: &self.limits };
            for place in wave {
                let node = &mut self.nodes[*place];
                if is_kept(*place) && matches!(node, Node::Operator { .. }) {
                    all.outputs[*place] = put_out.get(place).cloned().unwrap_or_default();
                    continue;
                }
                let done = step.of(*place, node, &mut self.meters[*place], &all)?;
                all.take(*place, done);
            }
            let read = |findables: &Findables| wave.contains(&findables.input);
            let places = self.lookups.places().iter().zip(found);
            let new = places.filter(|(findables, found)| !**found && read(findables));
            for (findables, _) in new {
                if let Some(kept) = &findables.kept {
                    kept.stage(true, self.version, cut, &all.outputs[findables.input], &self.threads)?;
                }
            }
        }
        self.settle(&all.outputs)?;
        let Stepped { mut outputs, failures, failing, left_out, late } = all;
        Ok(Advance { rows: outputs.pop().unwrap_or_default(), failures, failing, left_out, late })
    }

    /// Merges the changes of this step into the arrangements.
    fn settle(&self, outputs: &[Delta]) -> Result<()> {
        let kept = || self.lookups.arrangements();
        if kept().nth(1).is_none() || !self.threads.share(outputs.iter().map(Delta::num_rows).sum()) {
            return kept().try_for_each(|kept| kept.settle(self.version));
        }
        let version = self.version;
        self.threads.spread(kept().collect(), |kept| kept.settle(version)).into_iter().collect()
    }

    /// Returns true if several nodes of a wave have many input rows, so that they are stepped in parallel.
    fn is_busy(&self, wave: &[usize], outputs: &[Delta]) -> bool {
        let busy = |place: &&usize| match &self.nodes[**place] {
            Node::Input { .. } => false,
            Node::Operator { operator, inputs } => {
                let rows = inputs.iter().map(|input| outputs[*input].num_rows()).sum::<usize>();
                rows >= self.threads.piece_rows() && !operator.properties().hands_on
            }
        };
        wave.len() > 1 && self.threads.are_several() && wave.iter().filter(busy).nth(1).is_some()
    }

    /// Returns the places of the nodes whose rows nobody reads if nobody reads the result: the last node, and
    /// the nodes whose rows it only forwards.
    fn unread(&self) -> Vec<usize> {
        let Some(mut place) = self.nodes.len().checked_sub(1) else { return Vec::new() };
        let mut unread = vec![place];
        while let Node::Operator { operator, inputs } = &self.nodes[place]
            && let [input] = inputs[..]
            && operator.properties().hands_on
            && self.nodes.iter().filter(|node| node.reads(input)).count() == 1
        {
            place = input;
            unread.push(place);
        }
        unread
    }

    /// Drops all state, as if the flow had never been stepped; the counters stay.
    pub(crate) fn reset(&mut self) -> Result<()> {
        self.started = false;
        self.lookups.arrangements().try_for_each(SharedArrangement::reset)?;
        for (node, meter) in self.nodes.iter_mut().zip(&mut self.meters) {
            meter.errors = 0;
            if let Node::Operator { operator, .. } = node {
                operator.reset()?;
            }
        }
        Ok(())
    }
}
