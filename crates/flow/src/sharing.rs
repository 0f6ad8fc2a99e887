//! The arrangements of a flow: the sides of joins that can share one, and where they are.

mod across;
mod persistence;

use std::collections::HashMap;
use std::sync::Arc;

use millstream_delta::{Cut, Delta};

use crate::arrangement::{Arrangement, By, places_among, projected};
use crate::dag::Node;
use crate::operator::ArrangesSides;
use crate::parallelism::Threads;
use crate::persistence::check_columns;
use crate::{Error, Result};
pub use across::{Reader, needs_content, share_rows};
pub use persistence::PersistedArrangement;

/// The places of a flow where joins look rows up by key, and the arrangements of these rows.
#[derive(Debug)]
pub(crate) struct Lookups {
    places: Vec<Findables>,
}

/// Moves rows that joins of a flow look up between the joins and arrangements.
#[derive(Debug)]
pub struct Sharing<'a> {
    lookups: &'a mut Lookups,
    nodes: &'a mut [Node],
}

/// Sides of joins that read the same node and look rows up by the same key.
#[derive(Debug)]
pub(crate) struct Findables {
    /// The node whose rows are looked up.
    pub(crate) input: usize,
    pub(crate) by: By,
    /// The sides that look them up.
    pub(crate) sides: Vec<Findable>,
    /// The arrangement of the rows, unless the only side keeps them itself.
    pub(crate) kept: Option<SharedArrangement>,
}

/// A side of a join whose rows may be in an arrangement for others to find by the same key.
#[derive(Clone, Debug)]
pub(crate) struct Findable {
    /// The join, and the number of its side.
    pub(crate) node: usize,
    pub(crate) at: usize,
    /// The side's columns, by their numbers in the relation that it reads.
    pub(crate) columns: Vec<usize>,
}

/// An arrangement that a flow reads.
#[derive(Debug)]
pub(crate) struct SharedArrangement {
    arrangement: Arc<Arrangement>,
    /// True if other flows read it too; then versions are epoch numbers.
    across: bool,
}

/// A part of a flow that it may share with others: the rows of a relation by a key.
#[derive(Debug)]
pub struct Shareable<'a> {
    /// Its number among those of the flow.
    pub place: usize,
    /// The relation, by its place in `Flow::relations`.
    pub relation: usize,
    /// The key of the rows.
    pub by: &'a By,
    /// The columns that are read.
    pub columns: Vec<usize>,
    /// The arrangement that is shared with other flows, if there is one.
    pub shared: Option<&'a Arc<Arrangement>>,
}

impl Findables {
    /// Returns the same with the final places of nodes; `None` if the flow needs none of the sides.
    pub(crate) fn placed(self, places: &HashMap<usize, usize>) -> Option<Findables> {
        let input = *places.get(&self.input)?;
        let placed = |side: Findable| Some(Findable { node: *places.get(&side.node)?, ..side });
        let sides: Vec<Findable> = self.sides.into_iter().filter_map(placed).collect();
        (!sides.is_empty()).then_some(Findables { input, sides, ..self })
    }

    /// Returns the columns that are read, ascending.
    fn columns(&self) -> Vec<usize> {
        let all = self.sides.iter().flat_map(|side| &side.columns).chain(&self.by.keys);
        let mut columns: Vec<usize> = all.copied().collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

impl SharedArrangement {
    /// Stages the change of an epoch before any reader runs.
    pub(crate) fn stage(
        &self,
        first: bool,
        version: u64,
        cut: &Cut,
        delta: &Delta,
        threads: &Threads,
    ) -> Result<()> {
        match (first, self.across) {
            (true, true) => Ok(()),
            // The first change is the whole content, which joins expect among the rows.
            (true, false) => self.arrangement.take(delta),
            (false, true) => self.arrangement.stage(cut.epoch.0, delta, threads),
            (false, false) => self.arrangement.stage(version, delta, threads),
        }
    }

    /// Merges the change into the rows after all readers have run.
    pub(crate) fn settle(&self, version: u64) -> Result<()> {
        if self.across { Ok(()) } else { self.arrangement.settle(version) }
    }

    /// Makes it the arrangement of this flow alone. All columns stay: if flows that left it return, they read it again, and
    /// nobody arranges the relation anew.
    fn owned(self) -> Result<SharedArrangement> {
        self.arrangement.own()?;
        Ok(SharedArrangement { across: false, ..self })
    }

    pub(crate) fn reset(&self) -> Result<()> {
        if self.across { Ok(()) } else { self.arrangement.reset() }
    }
}

impl Lookups {
    /// Returns the lookups at some places.
    pub(crate) fn new(places: Vec<Findables>) -> Lookups {
        Lookups { places }
    }

    /// Returns the places where joins look rows up.
    pub(crate) fn places(&self) -> &[Findables] {
        &self.places
    }

    /// Returns the places, with the rows that are in arrangements.
    pub(crate) fn into_places(self) -> Vec<Findables> {
        self.places
    }

    /// Returns the same to change where the rows are. `nodes` are those of the flow.
    pub(crate) fn sharing<'a>(&'a mut self, nodes: &'a mut [Node]) -> Sharing<'a> {
        Sharing { lookups: self, nodes }
    }

    /// Returns the arrangements that the flow reads.
    pub(crate) fn arrangements(&self) -> impl Iterator<Item = &SharedArrangement> {
        self.places.iter().filter_map(|findables| findables.kept.as_ref())
    }

    /// Returns an empty arrangement for the rows of a place.
    fn arrangement(&self, place: usize, nodes: &[Node]) -> Result<Arrangement> {
        let findables = &self.places[place];
        let schema = &nodes[findables.input].properties().schema;
        Arrangement::new(schema, findables.by.clone(), findables.columns())
    }

    /// Returns the queries that read the arrangements of a node, if there is more than one.
    pub(crate) fn readers_of(&self, node: usize) -> Vec<Arc<str>> {
        let read = self.places.iter().filter(|found| found.sides.iter().any(|side| side.node == node));
        let mut readers = Vec::new();
        for arrangement in read.filter_map(|found| found.kept.as_ref()).map(|kept| &kept.arrangement) {
            let names = arrangement.readers();
            if names.len() > 1 {
                readers.extend(names.into_iter().filter(|name| !readers.contains(name)).collect::<Vec<_>>());
            }
        }
        readers
    }

    /// Returns the parts that the flow may share with other flows over the same relations.
    pub(crate) fn shareable(&self, nodes: &[Node]) -> Vec<Shareable<'_>> {
        let shareable = |(place, findables): (usize, &'_ Findables)| {
            let Node::Input { relation, .. } = &nodes[findables.input] else { return None };
            let shared = self.places[place].kept.as_ref().filter(|kept| kept.across);
            Some(Shareable {
                place,
                relation: *relation,
                by: &self.places[place].by,
                columns: findables.columns(),
                shared: shared.map(|kept| &kept.arrangement),
            })
        };
        self.places.iter().enumerate().filter_map(shareable).collect()
    }

    /// Returns the columns that the flow keeps of the rows of a place, in their order in saved state.
    fn own_columns(&self, place: usize) -> Vec<usize> {
        match &self.places[place].sides[..] {
            [side] => side.columns.clone(),
            _ => self.places[place].columns(),
        }
    }

    /// Returns the rows of a place, with the columns that the flow reads, if they are in an arrangement.
    pub(crate) fn rows_of(&self, place: usize) -> Result<Option<Delta>> {
        let kept = self.places[place].kept.as_ref();
        kept.map(|kept| self.rows_in(place, &kept.arrangement)).transpose()
    }

    fn rows_in(&self, place: usize, arrangement: &Arrangement) -> Result<Delta> {
        projected(&arrangement.content()?, &arrangement.places_of(&self.own_columns(place))?)
    }

    /// Returns the shared arrangement of a place, if there is one with these columns.
    fn shared_with(&self, place: usize, columns: &[usize]) -> Option<Arc<Arrangement>> {
        let kept = self.places[place].kept.as_ref().filter(|kept| kept.across)?;
        kept.arrangement.has(columns).then(|| kept.arrangement.clone())
    }

    /// Returns true if a flow that was stepped keeps all these columns of the rows of a place.
    fn keeps_all(&self, place: usize, columns: &[usize]) -> bool {
        let findables = &self.places[place];
        let has = |kept: &SharedArrangement| kept.arrangement.has(columns);
        findables.columns() == columns || findables.kept.as_ref().is_some_and(has)
    }
}

impl Sharing<'_> {
    /// Lets joins of this flow that look the same rows up by the same key share one arrangement.
    pub(crate) fn share_within(&mut self) -> Result<()> {
        for place in 0..self.lookups.places.len() {
            if self.lookups.places[place].sides.len() > 1 {
                let arrangement = self.lookups.arrangement(place, self.nodes)?;
                self.put_into(place, &Arc::new(arrangement), false)?;
            }
        }
        Ok(())
    }

    /// Reads the rows of a place from an arrangement: its own rows move there, and rows in another arrangement must be
    /// the same.
    fn put_into(&mut self, place: usize, arrangement: &Arc<Arrangement>, across: bool) -> Result<()> {
        for side in self.lookups.places[place].sides.clone() {
            let columns = arrangement.places_of(&side.columns)?;
            arranging(self.nodes, side.node)?.move_out(side.at, arrangement, columns)?;
        }
        self.lookups.places[place].kept =
            Some(SharedArrangement { arrangement: arrangement.clone(), across });
        self.count(place, true)
    }

    /// Sets whether this flow accounts for the arrangement of a place in its state; exactly one of the
    /// readers does.
    pub fn count(&mut self, place: usize, counted: bool) -> Result<()> {
        for (number, side) in self.lookups.places[place].sides.iter().enumerate() {
            arranging(self.nodes, side.node)?.count_elsewhere(side.at, counted && number == 0);
        }
        Ok(())
    }

    /// Returns an arrangement with these columns of the rows that this flow keeps for a place; called between two epochs.
    /// Rows and keys are not inserted again: the flow gives its own arrangement away, or their structures are copied and
    /// the memory of the rows is shared.
    fn arranged(&mut self, place: usize, columns: &[usize]) -> Result<Arc<Arrangement>> {
        let findables = &self.lookups.places[place];
        let (by, columns) = (findables.by.clone(), columns.to_vec());
        if let Some(kept) = &findables.kept {
            kept.arrangement.own()?;
            return match kept.arrangement.columns() == columns {
                true => Ok(kept.arrangement.clone()),
                false => kept.arrangement.fork(columns, false).map(Arc::new),
            };
        }
        let [side] = &findables.sides[..] else {
            return Err(Error::Bug("an arrangement is made of what others keep".into()));
        };
        let places = places_among(&side.columns, &columns);
        let places = places.ok_or_else(|| Error::Bug("a join reads the columns of its key".into()))?;
        let join = arranging(self.nodes, side.node)?;
        if let Some(arrangement) = join.arranged(side.at, by, columns, &places)? {
            return Ok(Arc::new(arrangement));
        }
        let rows = join.content_of(side.at)?;
        let arrangement = self.lookups.arrangement(place, self.nodes)?;
        arrangement.take_kept(projected(&rows, &places)?)?;
        Ok(Arc::new(arrangement))
    }

    /// Returns an arrangement with these columns of the content of a place's relation.
    fn arrange(&self, place: usize, columns: Vec<usize>, content: &Delta) -> Result<Arc<Arrangement>> {
        let findables = &self.lookups.places[place];
        let schema = &self.nodes[findables.input].properties().schema;
        let arrangement = Arrangement::new(schema, findables.by.clone(), columns)?;
        arrangement.take(content)?;
        Ok(Arc::new(arrangement))
    }

    /// Lets the flow keep the rows of a place by itself again: the current rows, or if `before` the rows as
    /// of the start of the epoch in which others may have changed them. The last of the named readers takes the
    /// arrangement over, others get a copy of the columns that they read.
    pub fn unshare(&mut self, place: usize, before: bool) -> Result<()> {
        let Some(kept) = self.lookups.places[place].kept.take_if(|kept| kept.across) else { return Ok(()) };
        if !before && kept.arrangement.readers().len() == 1 {
            self.lookups.places[place].kept = Some(kept.owned()?);
            return self.count(place, true);
        }
        if !before {
            kept.arrangement.settle_now()?;
        }
        let own = Arc::new(kept.arrangement.fork(self.lookups.own_columns(place), false)?);
        self.put_into(place, &own, false)
    }

    /// Reads the rows of `before` from `now` instead, which has the same rows, at any time within an epoch.
    pub fn read_instead(&mut self, before: &Arc<Arrangement>, now: &Arc<Arrangement>) -> Result<()> {
        for place in 0..self.lookups.places.len() {
            let is_read = |kept: &SharedArrangement| kept.across && Arc::ptr_eq(&kept.arrangement, before);
            if self.lookups.places[place].kept.as_ref().is_some_and(is_read) {
                self.put_into(place, now, true)?;
            }
        }
        Ok(())
    }

    /// Takes the arrangements over that the flow shared: no other flow reads them any more.
    pub fn own_shared(&mut self) -> Result<()> {
        for place in 0..self.lookups.places.len() {
            let kept = &mut self.lookups.places[place].kept;
            let Some(shared) = kept.take_if(|kept| kept.across) else { continue };
            *kept = Some(shared.owned()?);
            self.count(place, true)?;
        }
        Ok(())
    }

    /// Lets joins keep the rows of their sides themselves, unless several sides look them up. These rows are none: the
    /// flow is reset next.
    pub(crate) fn keep_nothing_elsewhere(&mut self) -> Result<()> {
        for place in 0..self.lookups.places.len() {
            let Some(kept) = self.lookups.places[place].kept.take() else { continue };
            match &self.lookups.places[place].sides[..] {
                [side] => arranging(self.nodes, side.node)?.move_in(side.at, Delta::default())?,
                _ if kept.across => {
                    let own = self.lookups.arrangement(place, self.nodes)?;
                    self.put_into(place, &Arc::new(own), false)?;
                }
                _ => self.lookups.places[place].kept = Some(kept),
            }
        }
        Ok(())
    }

    /// Stores rows that were in an arrangement for a place that has none.
    pub(crate) fn find_elsewhere(&mut self, place: usize, rows: Delta) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let columns = self.lookups.own_columns(place);
        let findables = &self.lookups.places[place];
        let schema = &self.nodes[findables.input].properties().schema;
        check_columns(&rows, &schema.project(&columns)?)?;
        if let Some(kept) = &findables.kept {
            return kept.arrangement.take_kept(rows);
        }
        let arrangement = Arrangement::new(schema, findables.by.clone(), columns)?;
        arrangement.take_kept(rows)?;
        self.put_into(place, &Arc::new(arrangement), false)
    }
}

/// Returns the operator at a node as one whose sides may be in arrangements.
fn arranging(nodes: &mut [Node], node: usize) -> Result<&mut dyn ArrangesSides> {
    let arranging = match &mut nodes[node] {
        Node::Operator { operator, .. } => operator.as_arranging(),
        Node::Input { .. } => None,
    };
    arranging.ok_or_else(|| Error::Bug("a side of a join is looked for elsewhere".into()))
}
