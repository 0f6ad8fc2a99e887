//! Draws expressions over one row.

use super::ast::{Expr, Node};
use super::draw::{Draw, Scope};
use super::family::{self, Family};
use super::forms::{FORMS, GENERAL, PARTS, PATTERNS};

impl Draw<'_> {
    /// Draws an expression of a family, at most `depth` operators deep.
    pub(super) fn expr(&mut self, scope: &Scope, family: Family, depth: usize) -> Expr {
        if depth == 0 || self.dice.chance(30) {
            return self.leaf(scope, family);
        }
        if scope.subqueries && self.dice.chance(4) {
            return self.scalar_subquery(scope, family);
        }
        if scope.subqueries && family == Family::Boolean && self.dice.chance(6) {
            return self.predicate(scope);
        }
        let form = match self.dice.below(10) {
            0 | 1 => self.dice.pick(GENERAL),
            _ => {
                let found = FORMS.iter().find(|(result, _)| *result == family);
                let forms = found.map_or(GENERAL, |(_, forms)| forms);
                self.dice.pick(forms)
            }
        };
        self.fill(form, scope, family, depth - 1)
    }

    /// Draws a condition that holds for some rows.
    pub(super) fn condition(&mut self, scope: &Scope, depth: usize) -> Expr {
        self.expr(scope, Family::Boolean, depth)
    }

    /// Draws a column or a value.
    pub(super) fn leaf(&mut self, scope: &Scope, family: Family) -> Expr {
        let found: Vec<&Expr> = scope.leaves.iter().filter(|leaf| leaf.family == family).collect();
        if !found.is_empty() && !self.dice.chance(12) {
            return self.dice.pick(&found).clone();
        }
        if !scope.outer.is_empty() && self.dice.chance(40) {
            let outer: Vec<&Expr> = scope.outer.iter().filter(|leaf| leaf.family == family).collect();
            if !outer.is_empty() {
                return self.dice.pick(&outer).clone();
            }
        }
        if !scope.leaves.is_empty() && found.is_empty() && self.dice.chance(75) {
            return self.converted(scope, family);
        }
        self.value(family)
    }

    /// Draws a value with its type.
    pub(super) fn value(&mut self, family: Family) -> Expr {
        let value = if self.dice.chance(4) { "NULL" } else { self.dice.pick(family.values()) };
        Expr::literal(family, family.typed(value))
    }

    /// Draws an expression of a family that no column has, from a column of another family.
    fn converted(&mut self, scope: &Scope, family: Family) -> Expr {
        let leaf = self.dice.pick(&scope.leaves);
        let other = leaf.family;
        if other.is_ordered() && (family == Family::Boolean || self.dice.chance(60)) {
            let word = self.dice.pick(&[" = ", " < ", " >= "]);
            let compared = Expr::form(Family::Boolean, &["(", word, ")"], vec![leaf, self.value(other)]);
            if family == Family::Boolean {
                return compared;
            }
            let operands = vec![compared, self.value(family), self.value(family)];
            return Expr::form(family, &["CASE WHEN ", " THEN ", " ELSE ", " END"], operands);
        }
        if family == Family::Boolean {
            return Expr::form(family, &["(", " IS NULL)"], vec![leaf]);
        }
        let operands = vec![leaf, self.value(family), self.value(family)];
        Expr::form(family, &["CASE WHEN ", " IS NULL THEN ", " ELSE ", " END"], operands)
    }

    /// Fills the holes of a form.
    fn fill(&mut self, form: &str, scope: &Scope, family: Family, depth: usize) -> Expr {
        let any = self.ordered_family(scope);
        let (mut pieces, mut operands, mut text) = (Vec::new(), Vec::new(), String::new());
        let mut rest = form;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').map_or(rest.len(), |at| open + at);
            text.push_str(&rest[..open]);
            match &rest[open + 1..close] {
                "n" => text.push_str(&self.dice.below(4).to_string()),
                "divisor" => text.push_str(&(1 + self.dice.below(4)).to_string()),
                "pattern" => text.push_str(self.dice.pick(PATTERNS)),
                "part" => text.push_str(self.dice.pick(PARTS)),
                hole => {
                    let wanted = match hole {
                        "same" => family,
                        "any" => any,
                        name => named(name).unwrap_or(any),
                    };
                    operands.push(self.expr(scope, wanted, depth));
                    pieces.push(std::mem::take(&mut text));
                }
            }
            rest = rest.get(close + 1..).unwrap_or_default();
        }
        pieces.push(text + rest);
        Expr { family, node: Node::Form(pieces, operands) }
    }

    /// Draws an ordered family, of a leaf if possible.
    pub(super) fn ordered_family(&mut self, scope: &Scope) -> Family {
        let found: Vec<Family> =
            scope.leaves.iter().map(|leaf| leaf.family).filter(|family| family.is_ordered()).collect();
        match self.dice.choose(&found) {
            Some(family) => family,
            None => self.dice.pick(&[Family::Integer, Family::Text]),
        }
    }
}

/// Returns the family of a hole.
fn named(name: &str) -> Option<Family> {
    family::ALL.iter().copied().find(|family| format!("{family:?}").to_lowercase() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hole_is_known() {
        let forms = FORMS.iter().flat_map(|(_, forms)| forms.iter()).chain(GENERAL);
        for form in forms {
            for hole in form.split('{').skip(1) {
                let name = hole.split('}').next().unwrap();
                let known = ["n", "divisor", "pattern", "part", "same", "any"].contains(&name);
                assert!(known || named(name).is_some(), "{form}");
            }
        }
    }
}
