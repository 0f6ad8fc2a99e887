//! A row pattern as a program for [`super::search`]: steps in the order in which SQL prefers them.
//!
//! `a b* | c` becomes `either 1 5; row a; either 3 4; …`: of two ways the first is tried first, so that the left
//! alternative comes before the right one and a greedy quantifier takes a row before it goes on. (Thompson's
//! construction, as Russ Cox describes it in "Regular Expression Matching: the Virtual Machine Approach".)
//!
//! The parser reads `a*?`, a reluctant quantifier, as `(a*)?` without the parentheses, by which the two are told apart.

use datafusion::sql::sqlparser::ast::{
    Ident, MatchRecognizePattern as Pattern, MatchRecognizeSymbol as Symbol,
    RepetitionQuantifier as Quantifier,
};

use super::written::WITHOUT;
use crate::error::{Error, Result};
use crate::hidden::fold;

/// How long a program may be: a quantifier's bounds write its pattern out that often.
const STEPS_MAX: usize = 20_000;

/// How many variables PERMUTE may name: it stands for all their orders.
const PERMUTED_MAX: usize = 6;

/// One step of a program. Unless it says so, the next one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Takes a row as this variable.
    Row(Taken),
    /// Goes on at the first place, or if nothing comes of that at the second.
    Either(usize, usize),
    /// Goes on at this place.
    Jump(usize),
    /// Goes on at the partition's start only.
    Start,
    /// Goes on at the partition's end only.
    End,
    /// Matches.
    Found,
}

/// What a row is taken as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// The variable's number.
    pub(super) variable: usize,
    /// Whether it stands in `{- … -}`: it is matched and not shown.
    pub(super) excluded: bool,
}

/// A pattern, and the variables in it in the order of their first places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    pub(super) variables: Vec<String>,
}

impl Program {
    /// The program of a pattern.
    pub(super) fn new(pattern: &Pattern) -> Result<Program> {
        let mut program = Program::default();
        program.add(pattern)?;
        program.push(Step::Found)?;
        Ok(program)
    }

    /// Whether some rows are matched and not shown.
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

    /// Adds what is matched and not shown.
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
            Symbol::Named(name) => Step::Row(Taken { variable: self.variable(name), excluded: false }),
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

    /// All orders of these, those that keep to the order as written first.
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

    /// Says where a choice leads whose pattern follows it and ends before `end`.
    fn settle(&mut self, at: usize, end: usize, greedy: bool) {
        self.steps[at] = if greedy { Step::Either(at + 1, end) } else { Step::Either(end, at + 1) };
    }
}

/// What stands in `{- … -}`.
fn excluded(pattern: &Pattern) -> Option<&Pattern> {
    match pattern {
        Pattern::Concat(parts) => match parts.as_slice() {
            [Pattern::Symbol(Symbol::Named(name)), inner] if name.value == WITHOUT => Some(inner),
            _ => None,
        },
        _ => None,
    }
}

/// How often at least and at most.
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

/// All orders of so many things, by their numbers.
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
