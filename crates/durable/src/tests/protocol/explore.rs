//! Explores all reachable states of a model breadth first, so that a counterexample has the fewest steps.
//!
//! (Explicit-state model checking: Clarke, Grumberg and Peled, *Model Checking*, chapter 2. A 64-bit hash
//! identifies a state, as in Holzmann's bitstate hashing: among a million states two collide with a
//! probability of one in 10^7.)

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A state machine.
pub trait Model {
    type State: Clone + Hash;
    type Action: Clone + Debug;

    fn begin(&self) -> Self::State;
    /// Returns the actions possible in a state.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;
    /// Returns the state after an action.
    fn after(&self, state: &Self::State, action: &Self::Action) -> Self::State;
    /// Checks the invariants of a state.
    fn check(&self, state: &Self::State) -> Result<(), String>;
    /// Returns true for an end state; one must be reachable from every state.
    fn is_end(&self, state: &Self::State) -> bool;
}

/// Statistics of an exploration.
#[derive(Debug, Default)]
pub struct Explored {
    pub states: usize,
    pub steps: usize,
    /// The number of steps to the farthest state.
    pub depth: usize,
    pub ends: usize,
}

/// A violation, and the steps to it.
#[derive(Debug)]
pub struct Counterexample {
    pub what: String,
    pub steps: Vec<String>,
}

/// A visited state, with its predecessor.
struct Known<A> {
    by: Option<(u32, A)>,
    depth: usize,
    is_end: bool,
}

/// All visited states.
struct Found<A> {
    known: Vec<Known<A>>,
    /// The transitions between states.
    steps: Vec<(u32, u32)>,
}

impl<A: Clone + Debug> Found<A> {
    fn counterexample(&self, state: u32, what: String) -> Counterexample {
        let (mut steps, mut at) = (Vec::new(), state);
        while let Some((before, action)) = &self.known[at as usize].by {
            steps.push(format!("{action:?}"));
            at = *before;
        }
        steps.reverse();
        Counterexample { what, steps }
    }

    /// Returns a state from which no end is reachable.
    fn stuck(&self) -> Option<u32> {
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.known.len()];
        for (from, to) in &self.steps {
            before[*to as usize].push(*from);
        }
        let mut good: Vec<bool> = self.known.iter().map(|known| known.is_end).collect();
        let mut queue: Vec<u32> =
            (0..self.known.len() as u32).filter(|state| good[*state as usize]).collect();
        while let Some(state) = queue.pop() {
            for from in &before[state as usize] {
                if !std::mem::replace(&mut good[*from as usize], true) {
                    queue.push(*from);
                }
            }
        }
        good.iter().position(|good| !good).map(|state| state as u32)
    }
}

/// Visits every state. Fails with the first invalid state, else with a state from which no end is reachable.
pub fn explore<M: Model>(model: &M) -> Result<Explored, Counterexample> {
    let mut found: Found<M::Action> = Found { known: Vec::new(), steps: Vec::new() };
    let mut places: HashMap<u64, u32> = HashMap::new();
    let mut queue = VecDeque::new();
    let first = model.begin();
    places.insert(fingerprint(&first), 0);
    found.known.push(Known { by: None, depth: 0, is_end: model.is_end(&first) });
    queue.push_back((0, first));
    while let Some((place, state)) = queue.pop_front() {
        model.check(&state).map_err(|what| found.counterexample(place, what))?;
        let depth = found.known[place as usize].depth + 1;
        for action in model.actions(&state) {
            let next = model.after(&state, &action);
            let new = found.known.len() as u32;
            let at = *places.entry(fingerprint(&next)).or_insert(new);
            if at == new {
                let is_end = model.is_end(&next);
                found.known.push(Known { by: Some((place, action)), depth, is_end });
                queue.push_back((new, next));
            }
            found.steps.push((place, at));
        }
    }
    if let Some(stuck) = found.stuck() {
        return Err(found.counterexample(stuck, "from here no end can be come to".into()));
    }
    Ok(Explored {
        states: found.known.len(),
        steps: found.steps.len(),
        depth: found.known.last().map_or(0, |known| known.depth),
        ends: found.known.iter().filter(|known| known.is_end).count(),
    })
}

fn fingerprint(state: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}
