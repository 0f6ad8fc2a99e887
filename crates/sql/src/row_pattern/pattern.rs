//! A row pattern as a program for [`super::search`]: steps in SQL's order of preference.
//!
//! `a b* | c` becomes `either 1 5; row a; either 3 4; …`. The first of two branches is tried first. So the
//! left alternative comes before the right one, and a greedy quantifier takes a row before it leaves.
//! (Thompson's construction, as Russ Cox describes it in "Regular Expression Matching: the Virtual Machine
//! Approach".)
//!
//! The parser reads `a*?`, a reluctant quantifier, as `(a*)?` without the parentheses, which distinguishes
//! the two.

use datafusion::sql::sqlparser::ast::{
    Ident, MatchRecognizePattern as Pattern, MatchRecognizeSymbol as Symbol,
    RepetitionQuantifier as Quantifier,
};

use super::syntax::WITHOUT;
use crate::error::{Error, Result};
use crate::hidden_columns::fold;

/// The most steps of a program: a quantifier's bounds repeat its pattern.
const STEPS_MAX: usize = 20_000;

/// The most variables of PERMUTE, which expands to all their orders.
const PERMUTED_MAX: usize = 6;

/// One step of a program. By default the next step follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Maps a row to this variable.
    Row(MatchedRow),
    /// Continues at the first step; if that fails, at the second.
    Either(usize, usize),
    /// Continues at this step.
    Jump(usize),
    /// Continues only at the partition's start.
    Start,
    /// Continues only at the partition's end.
    End,
    /// Completes a match.
    Found,
}

/// The mapping of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MatchedRow {
    /// The variable's index.
    pub(super) variable: usize,
    /// True within `{- … -}`: the row is matched but not shown.
    pub(super) excluded: bool,
}

/// A pattern, and its variables in the order of first use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    pub(super) variables: Vec<String>,
}

impl Program {
    /// Compiles a pattern to a program.
    pub(super) fn new(pattern: &Pattern) -> Result<Program> {
        let mut program = Program::default();
        program.add(pattern)?;
        program.push(Step::Found)?;
        Ok(program)
    }

    /// True if some rows are matched but not shown.
    pub(super) fn excludes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Row(taken) if taken.excluded))
    }

    fn push(&mut self, step: Step) -> Result<usize> {
        if self.steps.len() == STEPS_MAX {
            return Err(Error::invalid(format!(
                "MATCH_RECOGNIZE: the PATTERN is longer than {STEPS_MAX} steps, its quantifiers written out"
            ))
            .hint("Lower the bounds of {n,m}, or count the rows in DEFINE: count(a.*) <= 1000."));
        }
        self.steps.push(step);
        Ok(self.steps.len() - 1)
    }

    fn add(&mut self, pattern: &Pattern) -> Result<()> {
        match pattern {
            Pattern::Symbol(symbol) => self.symbol(symbol),
            Pattern::Exclude(symbol) => self.without(|program| program.symbol(symbol)),
            Pattern::Concat(parts) => parts.iter().try_for_each(|part| self.add(part)),
            Pattern::Group(inner) => match excluded(inner) {
                Some(inner) => self.without(|program| program.add(inner)),
                None => self.add(inner),
            },
            Pattern::Alternation(ways) => self.alternatives(ways, &mut |program, way| program.add(way)),
            Pattern::Permute(symbols) => self.permuted(symbols),
            Pattern::Repetition(inner, quantifier) => match (inner.as_ref(), quantifier) {
                (Pattern::Repetition(repeated, quantifier), Quantifier::AtMostOne) => {
                    self.repeated(repeated, quantifier, false)
                }
                _ => self.repeated(inner, quantifier, true),
            },
        }
    }

    /// Adds a part that is matched but not shown.
    fn without(&mut self, add: impl FnOnce(&mut Program) -> Result<()>) -> Result<()> {
        let start = self.steps.len();
        add(self)?;
        for step in &mut self.steps[start..] {
            if let Step::Row(taken) = step {
                taken.excluded = true;
            }
        }
        Ok(())
    }

    fn symbol(&mut self, symbol: &Symbol) -> Result<()> {
        let step = match symbol {
            Symbol::Start => Step::Start,
            Symbol::End => Step::End,
            Symbol::Named(name) => Step::Row(MatchedRow { variable: self.variable(name), excluded: false }),
        };
        self.push(step).map(drop)
    }

    fn variable(&mut self, name: &Ident) -> usize {
        let name = fold(name);
        let known = self.variables.iter().position(|known| *known == name);
        known.unwrap_or_else(|| {
            self.variables.push(name);
            self.variables.len() - 1
        })
    }

    fn alternatives<T>(
        &mut self,
        ways: &[T],
        add: &mut dyn FnMut(&mut Program, &T) -> Result<()>,
    ) -> Result<()> {
        let mut ends = Vec::with_capacity(ways.len());
        for (at, way) in ways.iter().enumerate() {
            if at + 1 == ways.len() {
                add(self, way)?;
                break;
            }
            let either = self.push(Step::Either(0, 0))?;
            add(self, way)?;
            ends.push(self.push(Step::Jump(0))?);
            self.steps[either] = Step::Either(either + 1, self.steps.len());
        }
        let end = self.steps.len();
        ends.into_iter().for_each(|at| self.steps[at] = Step::Jump(end));
        Ok(())
    }

    /// Adds all orders of these symbols. Orders closer to the text come first.
    fn permuted(&mut self, symbols: &[Symbol]) -> Result<()> {
        if symbols.len() > PERMUTED_MAX {
            return Err(Error::invalid(format!(
                "MATCH_RECOGNIZE: PERMUTE of {} variables stands for all their orders, which are too many",
                symbols.len()
            ))
            .hint(format!("Name at most {PERMUTED_MAX}.")));
        }
        let orders = orders(symbols.len());
        self.alternatives(&orders, &mut |program, order| {
            order.iter().try_for_each(|at| program.symbol(&symbols[*at]))
        })
    }

    fn repeated(&mut self, pattern: &Pattern, quantifier: &Quantifier, greedy: bool) -> Result<()> {
        if matches!(pattern, Pattern::Repetition(..)) {
            return Err(Error::invalid(format!(
                "MATCH_RECOGNIZE: {pattern}{quantifier} has two quantifiers"
            ))
            .hint("Put parentheses around the first: (a{2})*."));
        }
        if matches!(pattern, Pattern::Symbol(Symbol::Start | Symbol::End)) {
            return Err(Error::invalid(format!("MATCH_RECOGNIZE: {pattern}{quantifier} repeats an anchor")));
        }
        let (least, most) = bounds(quantifier)?;
        for _ in 0..least {
            self.add(pattern)?;
        }
        match most {
            None => {
                let either = self.push(Step::Either(0, 0))?;
                self.add(pattern)?;
                self.push(Step::Jump(either))?;
                self.settle(either, self.steps.len(), greedy);
            }
            Some(most) => {
                let mut optional = Vec::with_capacity(most - least);
                for _ in least..most {
                    optional.push(self.push(Step::Either(0, 0))?);
                    self.add(pattern)?;
                }
                let end = self.steps.len();
                optional.into_iter().for_each(|at| self.settle(at, end, greedy));
            }
        }
        Ok(())
    }

    /// Sets the targets of a choice. Its pattern follows it and ends before `end`.
    fn settle(&mut self, at: usize, end: usize, greedy: bool) {
        self.steps[at] = if greedy { Step::Either(at + 1, end) } else { Step::Either(end, at + 1) };
    }
}

/// Returns the pattern within `{- … -}`.
fn excluded(pattern: &Pattern) -> Option<&Pattern> {
    match pattern {
        Pattern::Concat(parts) => match parts.as_slice() {
            [Pattern::Symbol(Symbol::Named(name)), inner] if name.value == WITHOUT => Some(inner),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the least and the greatest number of repetitions.
fn bounds(quantifier: &Quantifier) -> Result<(usize, Option<usize>)> {
    let (least, most) = match *quantifier {
        Quantifier::ZeroOrMore => (0, None),
        Quantifier::OneOrMore => (1, None),
        Quantifier::AtMostOne => (0, Some(1)),
        Quantifier::Exactly(count) => (count, Some(count)),
        Quantifier::AtLeast(least) => (least, None),
        Quantifier::AtMost(most) => (0, Some(most)),
        Quantifier::Range(least, most) => (least, Some(most)),
    };
    if most == Some(0) || most.is_some_and(|most| most < least) {
        return Err(Error::invalid(format!(
            "MATCH_RECOGNIZE: the quantifier {quantifier} allows no number of rows"
        ))
        .hint("In {n,m}, m is at least one and no less than n."));
    }
    Ok((least as usize, most.map(|most| most as usize)))
}

/// Returns all permutations of this many indexes.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut orders = Vec::new();
    for first in 0..count {
        for rest in self::orders(count - 1) {
            let rest = rest.into_iter().map(|at| if at < first { at } else { at + 1 });
            orders.push(std::iter::once(first).chain(rest).collect());
        }
    }
    orders
}
