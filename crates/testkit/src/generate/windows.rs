//! Draws functions over windows.

use super::ast::{Aggregate, Expr, Node, Order, Window};
use super::draw::{DIRECTIONS, Draw, Scope, is_column};
use super::family::Family;

const STARTS: &[&str] = &["UNBOUNDED PRECEDING", "2 PRECEDING", "1 PRECEDING", "CURRENT ROW"];
const ENDS: &[&str] = &["CURRENT ROW", "1 FOLLOWING", "2 FOLLOWING", "UNBOUNDED FOLLOWING"];

impl Draw<'_> {
    /// Draws columns, some of which are functions over windows.
    pub(super) fn windowed(&mut self, scope: &Scope, families: &[Family]) -> Vec<(Expr, String)> {
        let mut items = Vec::new();
        let mut some = false;
        for (at, family) in families.iter().enumerate() {
            let last = at + 1 == families.len();
            let window = match self.dice.chance(50) || (last && !some) {
                true => self.window(scope, *family),
                false => None,
            };
            some |= window.is_some();
            let item = match window {
                Some(window) if self.dice.chance(15) => {
                    let inner = Scope { leaves: vec![window], outer: Vec::new(), subqueries: false };
                    self.expr(&inner, *family, 1)
                }
                Some(window) => window,
                None => self.expr(&Scope { subqueries: false, ..scope.clone() }, *family, 1),
            };
            items.push((item, format!("c{at}")));
        }
        items
    }

    /// Draws a function over a window that returns `family`, if there is one.
    fn window(&mut self, scope: &Scope, family: Family) -> Option<Expr> {
        let plain = Scope { outer: Vec::new(), subqueries: false, ..scope.clone() };
        let call = match self.dice.below(2) {
            0 => self.ranked(&plain, family),
            _ => None,
        };
        let is_rank = call.is_some();
        let call = match call {
            Some(call) => call,
            None => self.call(&plain, family, false)?,
        };
        let leaves: Vec<Expr> =
            plain.leaves.iter().filter(|leaf| is_column(leaf) || leaf.family.is_ordered()).cloned().collect();
        let mut window = Window { call, partition: Vec::new(), order: Vec::new(), frame: String::new() };
        for _ in 0..self.dice.below(3) {
            window.partition.extend(self.dice.choose(&leaves));
        }
        for _ in 0..self.dice.below(3) {
            if let Some(expr) = self.dice.choose(&leaves) {
                window.order.push(Order { expr, suffix: self.dice.pick(DIRECTIONS) });
            }
        }
        let framed = !is_rank || ["first_value", "last_value", "nth_value"].contains(&window.call.function);
        if framed {
            self.frame(&mut window, &plain);
        }
        Some(Expr { family, node: Node::Window(Box::new(window)) })
    }

    /// Draws a function that makes sense only over a window.
    fn ranked(&mut self, scope: &Scope, family: Family) -> Option<Aggregate> {
        let mut arguments = Vec::new();
        let function = match family {
            Family::Integer if self.dice.chance(60) => {
                self.dice.pick(&["row_number", "rank", "dense_rank", "ntile", "row_number", "rank"])
            }
            Family::Float if self.dice.chance(50) => self.dice.pick(&["percent_rank", "cume_dist"]),
            _ => self.dice.pick(&["lag", "lead", "first_value", "last_value", "nth_value"]),
        };
        match function {
            "ntile" => arguments.push(Expr::literal(Family::Integer, (1 + self.dice.below(4)).to_string())),
            "lag" | "lead" => {
                arguments.push(self.expr(scope, family, 0));
                if self.dice.chance(50) {
                    arguments.push(Expr::literal(Family::Integer, self.dice.below(3).to_string()));
                    if self.dice.chance(50) {
                        let value = self.dice.pick(family.values());
                        arguments.push(Expr::literal(family, family.typed(value)));
                    }
                }
            }
            "first_value" | "last_value" => arguments.push(self.expr(scope, family, 0)),
            "nth_value" => {
                arguments.push(self.expr(scope, family, 0));
                arguments.push(Expr::literal(Family::Integer, (1 + self.dice.below(3)).to_string()));
            }
            _ => {}
        }
        let (order, within) = (Vec::new(), Vec::new());
        Some(Aggregate { function, arguments, distinct: false, order, within, filter: None })
    }

    fn frame(&mut self, window: &mut Window, scope: &Scope) {
        let unit = match self.dice.below(4) {
            0 => return,
            1 => "GROUPS",
            2 => "RANGE",
            _ => "ROWS",
        };
        let (mut start, mut end) = (self.dice.pick(STARTS), self.dice.pick(ENDS));
        if unit == "GROUPS" && window.order.is_empty() {
            window.order.extend(self.dice.choose(&scope.leaves).map(|expr| Order { expr, suffix: "" }));
        }
        if unit == "RANGE" {
            // RANGE offsets need a single numeric sort column.
            let numbers: Vec<Expr> =
                scope.leaves.iter().filter(|leaf| leaf.family == Family::Integer).cloned().collect();
            match self.dice.choose(&numbers) {
                Some(expr) => window.order = vec![Order { expr, suffix: self.dice.pick(DIRECTIONS) }],
                None => (start, end) = ("UNBOUNDED PRECEDING", "CURRENT ROW"),
            }
        }
        if self.dice.chance(10) {
            (start, end) = self.dice.pick(&[
                ("2 PRECEDING", "1 PRECEDING"),
                ("1 FOLLOWING", "2 FOLLOWING"),
                ("UNBOUNDED PRECEDING", "1 PRECEDING"),
            ]);
        }
        window.frame = format!("{unit} BETWEEN {start} AND {end}");
    }
}
