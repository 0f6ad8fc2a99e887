//! Evaluates expressions of XPath 1.0 on a document.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::names::parts;
use super::parser::{Axis, Expression, Step, Test};
use super::tree::{Document, XML_SPACE};
use crate::error::{Error, Result};

/// A node: the place of an element or a text, and that of an attribute of it, from 1; 0 for the node itself.
pub(super) type Found = (usize, usize);

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Nodes in the order of the document.
    Nodes(Vec<Found>),
    Number(f64),
    Text(String),
    Flag(bool),
}

/// The node at hand, with its place among others, from 1, and their number. The place is 0 if there is none.
#[derive(Clone, Copy)]
struct Context {
    node: Found,
    position: usize,
    size: usize,
}

/// Evaluates an expression at the root of a document.
pub(super) fn evaluate(document: &Document, expression: &Expression) -> Result<Value> {
    evaluate_at(document, expression, (0, 0))
}

/// Evaluates an expression at a node.
pub(super) fn evaluate_at(document: &Document, expression: &Expression, node: Found) -> Result<Value> {
    let position = usize::from(document.prefixes.is_none());
    document.evaluate(expression, Context { node, position, size: 1 })
}

impl Value {
    pub(super) fn flag(&self) -> bool {
        match self {
            Value::Nodes(nodes) => !nodes.is_empty(),
            Value::Number(number) => *number != 0.0 && !number.is_nan(),
            Value::Text(text) => !text.is_empty(),
            Value::Flag(flag) => *flag,
        }
    }

    pub(super) fn text(&self, document: &Document) -> String {
        match self {
            Value::Nodes(nodes) => nodes.first().map_or(String::new(), |node| document.string_of(*node)),
            Value::Number(number) if document.prefixes.is_some() => shortened(*number),
            Value::Number(number) => written(*number),
            Value::Text(text) => text.clone(),
            Value::Flag(flag) => flag.to_string(),
        }
    }

    pub(super) fn number(&self, document: &Document) -> f64 {
        match self {
            Value::Number(number) => *number,
            Value::Flag(flag) => f64::from(u8::from(*flag)),
            other => read(&other.text(document)),
        }
    }
}

/// Reads a number; NaN if a text is none.
fn read(text: &str) -> f64 {
    let text = text.trim();
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
    if is_plain { text.parse().unwrap_or(f64::NAN) } else { f64::NAN }
}

fn written(number: f64) -> String {
    match number {
        _ if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_string(),
        0.0 => "0".to_string(),
        _ => number.to_string(),
    }
}

/// Returns a number with the 15 digits of libxml2.
fn shortened(number: f64) -> String {
    let size = number.abs();
    if size == 0.0 || !number.is_finite() || (number.fract() == 0.0 && size <= f64::from(i32::MAX)) {
        return if number == 0.0 { "0".into() } else { written(number) };
    }
    let plain = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if !(1e-5..=1e9).contains(&size) {
        let text = format!("{number:.14e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{}e{sign}{exponent:0>2}", plain(digits));
    }
    // Lies between -5 and 9.
    let places = size.log10().floor() as i32 + 1;
    let digits = if places > 0 { 14 - places } else { 15 - places };
    plain(&format!("{number:.0$}", usize::try_from(digits).unwrap_or(0)))
}

impl Document {
    /// Returns the number of bytes of the text of a node.
    fn length_of(&self, (node, attribute): Found) -> usize {
        match attribute.checked_sub(1) {
            Some(at) => self.nodes[node].attributes[at].1.len(),
            None => self.length(node),
        }
    }

    pub(super) fn string_of(&self, (node, attribute): Found) -> String {
        match attribute.checked_sub(1) {
            Some(at) => self.nodes[node].attributes[at].1.clone(),
            None => self.string(node),
        }
    }

    fn name_of(&self, (node, attribute): Found) -> &str {
        match attribute.checked_sub(1) {
            Some(at) => &self.nodes[node].attributes[at].0,
            None => {
                let node = &self.nodes[node];
                let target = node.remark.as_ref().and_then(|remark| remark.target.as_deref());
                node.name.as_deref().or(target).unwrap_or_default()
            }
        }
    }

    fn evaluate(&self, expression: &Expression, at: Context) -> Result<Value> {
        Ok(match expression {
            Expression::Number(number) => Value::Number(*number),
            Expression::Text(text) => Value::Text(text.clone()),
            Expression::Negated(of) => Value::Number(-self.evaluate(of, at)?.number(self)),
            Expression::Operation(operator, left, right) => {
                self.operation(operator, &self.evaluate(left, at)?, || self.evaluate(right, at))?
            }
            Expression::Call(name, arguments) => {
                let values = arguments.iter().map(|argument| self.evaluate(argument, at));
                self.call(name, &values.collect::<Result<Vec<_>>>()?, at)?
            }
            Expression::Path(from_root, steps) => {
                let start = if *from_root { (0, 0) } else { at.node };
                Value::Nodes(self.walk(vec![start], steps)?)
            }
            Expression::From(of, predicates, steps) => {
                let mut nodes = self.nodes_of(&self.evaluate(of, at)?)?;
                for predicate in predicates {
                    nodes = self.filter(nodes, predicate)?;
                }
                Value::Nodes(self.walk(nodes, steps)?)
            }
        })
    }

    fn nodes_of(&self, value: &Value) -> Result<Vec<Found>> {
        match value {
            Value::Nodes(nodes) => Ok(nodes.clone()),
            _ => Err(Error::invalid("an XPath has a value where nodes were expected")),
        }
    }

    fn operation(
        &self,
        operator: &str,
        left: &Value,
        right: impl FnOnce() -> Result<Value>,
    ) -> Result<Value> {
        Ok(match operator {
            "or" => Value::Flag(left.flag() || right()?.flag()),
            "and" => Value::Flag(left.flag() && right()?.flag()),
            "|" => {
                let mut nodes = self.nodes_of(left)?;
                nodes.extend(self.nodes_of(&right()?)?);
                nodes.sort_unstable();
                nodes.dedup();
                Value::Nodes(nodes)
            }
            "=" | "!=" | "<" | "<=" | ">" | ">=" => Value::Flag(self.compare(operator, left, &right()?)?),
            _ => {
                let (left, right) = (left.number(self), right()?.number(self));
                Value::Number(match operator {
                    "+" => left + right,
                    "-" => left - right,
                    "*" => left * right,
                    "div" => left / right,
                    _ => left % right,
                })
            }
        })
    }

    /// Compares values. Nodes are compared if one of them is.
    fn compare(&self, operator: &str, left: &Value, right: &Value) -> Result<bool> {
        let count = |value: &Value, other: &Value| match value {
            Value::Nodes(nodes) if !matches!(other, Value::Flag(_)) => nodes.len(),
            _ => 1,
        };
        let one = |value: &Value, other: &Value, at: usize| match value {
            Value::Nodes(_) if matches!(other, Value::Flag(_)) => Ok(Value::Flag(value.flag())),
            Value::Nodes(nodes) => {
                let text = self.string_of(nodes[at]);
                self.visit(1)?;
                self.work(text.len())?;
                Ok::<_, Error>(Value::Text(text))
            }
            value => Ok(value.clone()),
        };
        for at in 0..count(left, right) {
            let one_left = one(left, right, at)?;
            for at in 0..count(right, left) {
                if self.holds(operator, &one_left, &one(right, left, at)?) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn holds(&self, operator: &str, left: &Value, right: &Value) -> bool {
        let equal = match (left, right) {
            (Value::Flag(_), _) | (_, Value::Flag(_)) => left.flag() == right.flag(),
            (Value::Text(left), Value::Text(right)) => left == right,
            _ => left.number(self) == right.number(self),
        };
        let order = || left.number(self).partial_cmp(&right.number(self));
        match operator {
            "=" => equal,
            "!=" => !equal,
            "<" => order() == Some(Ordering::Less),
            ">" => order() == Some(Ordering::Greater),
            "<=" => matches!(order(), Some(Ordering::Less | Ordering::Equal)),
            _ => matches!(order(), Some(Ordering::Greater | Ordering::Equal)),
        }
    }

    fn walk(&self, mut nodes: Vec<Found>, steps: &[Step]) -> Result<Vec<Found>> {
        for step in steps {
            let space = self.space_in(&step.test)?;
            let mut next = Vec::new();
            let mut most = 4_096;
            for node in nodes {
                // All nodes before one are looked at.
                self.visit(if step.axis == Axis::AllPreceding { node.0 } else { 0 })?;
                let mut found = self.along(node, step.axis);
                self.visit(found.len() + 1)?;
                found.retain(|node| self.passes(*node, step, space));
                for predicate in &step.predicates {
                    found = self.filter(found, predicate)?;
                }
                next.extend(found);
                // Steps from many nodes may find the same ones again and again.
                if next.len() > most {
                    next.sort_unstable();
                    next.dedup();
                    most = most.max(2 * next.len());
                }
            }
            next.sort_unstable();
            next.dedup();
            nodes = next;
        }
        Ok(nodes)
    }

    /// Returns the nodes of an axis, the nearest ones first.
    fn along(&self, (node, attribute): Found, axis: Axis) -> Vec<Found> {
        let own = (node, attribute);
        let children = |node: usize| self.nodes[node].children.iter().map(|child| (*child, 0));
        let is_attribute = attribute > 0;
        let parent = || if is_attribute { (node, 0) } else { (self.nodes[node].parent, 0) };
        let has_parent = is_attribute || node > 0;
        match axis {
            Axis::Own => vec![own],
            Axis::Attribute if !is_attribute => {
                (1..=self.nodes[node].attributes.len()).map(|at| (node, at)).collect()
            }
            Axis::Child if !is_attribute => children(node).collect(),
            Axis::Descendant if !is_attribute => self.below(node),
            Axis::DescendantOrOwn => {
                let mut found = vec![own];
                found.extend(if is_attribute { Vec::new() } else { self.below(node) });
                found
            }
            Axis::Parent if has_parent => vec![parent()],
            Axis::Ancestor | Axis::AncestorOrOwn => {
                let mut found = if axis == Axis::AncestorOrOwn { vec![own] } else { Vec::new() };
                let mut at = own;
                while at != (0, 0) {
                    at = if at.1 > 0 { (at.0, 0) } else { (self.nodes[at.0].parent, 0) };
                    found.push(at);
                }
                found
            }
            Axis::Following if has_parent && !is_attribute => {
                children(parent().0).filter(|(other, _)| *other > node).collect()
            }
            Axis::Preceding if has_parent && !is_attribute => {
                children(parent().0).filter(|(other, _)| *other < node).rev().collect()
            }
            Axis::AllFollowing if has_parent => {
                (self.last_of(node) + 1..self.nodes.len()).map(|place| (place, 0)).collect()
            }
            Axis::AllPreceding if has_parent => {
                (1..node).rev().filter(|place| self.last_of(*place) < node).map(|place| (place, 0)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the last node below one, or itself.
    fn last_of(&self, node: usize) -> usize {
        let mut end = node;
        while let Some(last) = self.nodes[end].children.last() {
            end = *last;
        }
        end
    }

    /// Returns all nodes below one. Nodes are in the order in which they begin.
    fn below(&self, node: usize) -> Vec<Found> {
        (node + 1..=self.last_of(node)).map(|place| (place, 0)).collect()
    }

    /// Returns the namespace of a test's prefix: none if prefixes are part of names, or if there is no prefix.
    fn space_in(&self, test: &Test) -> Result<Option<&str>> {
        let Some(prefixes) = &self.prefixes else { return Ok(None) };
        let prefix = match test {
            Test::Name(name) => parts(name).0,
            Test::AnyOf(prefix) => prefix.as_str(),
            _ => "",
        };
        match (prefix, prefixes.get(prefix)) {
            ("", _) => Ok(None),
            (_, Some(space)) => Ok(Some(space)),
            ("xml", None) => Ok(Some(XML_SPACE)),
            (prefix, None) => Err(Error::invalid(format!("Undefined namespace prefix {prefix}"))
                .hint(format!("Pass its namespace: ARRAY[ARRAY['{prefix}', 'http://…']]."))),
        }
    }

    /// Returns the namespace of a node's name; none if it has none.
    fn namespace_of(&self, (node, attribute): Found) -> Option<&str> {
        let place = *self.nodes[node].spaces.get(attribute)?;
        self.spaces.get(place).filter(|_| place > 0).map(String::as_str)
    }

    fn passes(&self, found: Found, step: &Step, space: Option<&str>) -> bool {
        let node = &self.nodes[found.0];
        let is_own = found.1 == 0;
        let is_named = if step.axis == Axis::Attribute { !is_own } else { is_own && node.name.is_some() };
        // An element is also found by its own axis, and by that of its descendants.
        let is_named = is_named || (found.1 > 0 && step.axis == Axis::Own && self.prefixes.is_none());
        match &step.test {
            Test::Node => true,
            Test::Text => is_own && node.text.is_some(),
            Test::Comment => is_own && node.remark.as_ref().is_some_and(|found| found.target.is_none()),
            Test::Instruction(target) => {
                let found = node.remark.as_ref().filter(|_| is_own).and_then(|found| found.target.as_ref());
                found.is_some_and(|found| target.as_ref().is_none_or(|target| target == found))
            }
            Test::Any => is_named,
            Test::AnyOf(prefix) if self.prefixes.is_none() => {
                is_named && parts(self.name_of(found)).0 == prefix
            }
            Test::AnyOf(_) => is_named && self.namespace_of(found) == space,
            Test::Name(name) if self.prefixes.is_none() => is_named && self.name_of(found) == name,
            Test::Name(name) => {
                is_named && parts(self.name_of(found)).1 == parts(name).1 && self.namespace_of(found) == space
            }
        }
    }

    fn filter(&self, nodes: Vec<Found>, predicate: &Expression) -> Result<Vec<Found>> {
        let size = nodes.len();
        let mut passed = Vec::new();
        self.visit(size)?;
        for (at, node) in nodes.into_iter().enumerate() {
            let value = self.evaluate(predicate, Context { node, position: at + 1, size })?;
            let passes = match value {
                Value::Number(place) => place == (at + 1) as f64,
                other => other.flag(),
            };
            if passes {
                passed.push(node);
            }
        }
        Ok(passed)
    }

    fn call(&self, name: &str, values: &[Value], at: Context) -> Result<Value> {
        let own = Value::Nodes(vec![at.node]);
        let first = values.first().unwrap_or(&own);
        self.work_of(values, first)?;
        let text = |place: usize| values.get(place).map_or(String::new(), |value| value.text(self));
        check_count(name, values.len())?;
        // As in libxml2, only predicates have a position.
        if at.position == 0 && matches!(name, "position" | "last") {
            return Err(Error::invalid(format!("Invalid context {name}")).hint("Write it within [ and ]."));
        }
        Ok(match name {
            "position" => Value::Number(at.position as f64),
            "last" => Value::Number(at.size as f64),
            "count" => Value::Number(self.nodes_of(first)?.len() as f64),
            "sum" => {
                let nodes = self.nodes_of(first)?;
                let mut sum = 0.0;
                for node in nodes {
                    let text = self.string_of(node);
                    self.visit(1)?;
                    self.work(text.len())?;
                    sum += read(&text);
                }
                Value::Number(sum)
            }
            "true" | "false" => Value::Flag(name == "true"),
            "not" => Value::Flag(!first.flag()),
            "boolean" => Value::Flag(first.flag()),
            "number" => Value::Number(first.number(self)),
            "floor" => Value::Number(first.number(self).floor()),
            "ceiling" => Value::Number(first.number(self).ceil()),
            "round" => Value::Number(match first.number(self) {
                // Zero keeps its sign.
                small if (-0.5..0.5).contains(&small) => small * 0.0,
                number => (number + 0.5).floor(),
            }),
            "contains" => Value::Flag(text(0).contains(&text(1))),
            "starts-with" => Value::Flag(text(0).starts_with(&text(1))),
            "string-length" => Value::Number(first.text(self).chars().count() as f64),
            "substring" => Value::Text(self.substring(values)),
            "namespace-uri" => {
                let node = self.nodes_of(first)?.first().copied();
                Value::Text(node.and_then(|node| self.namespace_of(node)).unwrap_or_default().to_string())
            }
            "name" | "local-name" => {
                let node = self.nodes_of(first)?.first().copied();
                let name_of = node.map_or("", |node| self.name_of(node));
                let local = name_of.rsplit_once(':').map_or(name_of, |(_, local)| local);
                Value::Text(if name == "name" { name_of } else { local }.to_string())
            }
            _ => Value::Text(match name {
                "concat" => values.iter().map(|value| value.text(self)).collect(),
                "normalize-space" => first.text(self).split_whitespace().collect::<Vec<_>>().join(" "),
                "substring-before" => {
                    text(0).split_once(&text(1)).map_or("", |(before, _)| before).to_string()
                }
                "substring-after" => text(0).split_once(&text(1)).map_or("", |(_, after)| after).to_string(),
                "translate" => translate(&text(0), &text(1), &text(2)),
                _ => first.text(self),
            }),
        })
    }

    /// Counts the texts of a call's arguments.
    fn work_of(&self, values: &[Value], first: &Value) -> Result<()> {
        let length = |value: &Value| match value {
            Value::Nodes(nodes) => nodes.first().map_or(0, |node| self.length_of(*node)),
            Value::Text(text) => text.len(),
            Value::Number(_) | Value::Flag(_) => 0,
        };
        let own = if values.is_empty() { length(first) } else { 0 };
        self.work(own + values.iter().map(length).sum::<usize>())
    }

    /// Returns the characters whose places, from 1, are in a range of rounded numbers.
    fn substring(&self, values: &[Value]) -> String {
        let round = |number: f64| (number + 0.5).floor();
        let start = values.get(1).map_or(1.0, |value| round(value.number(self)));
        let end = values.get(2).map_or(f64::INFINITY, |value| start + round(value.number(self)));
        let text = values.first().map_or(String::new(), |value| value.text(self));
        let is_inside = |at: usize| {
            let place = (at + 1) as f64;
            place >= start && place < end
        };
        text.chars().enumerate().filter(|(at, _)| is_inside(*at)).map(|(_, c)| c).collect()
    }
}

/// Fails if XPath has no function of a name, or one with another number of arguments.
fn check_count(name: &str, count: usize) -> Result<()> {
    let fits = match name {
        "position" | "last" | "true" | "false" => count == 0,
        "string" | "number" | "string-length" | "normalize-space" | "name" | "local-name"
        | "namespace-uri" => count < 2,
        "count" | "sum" | "not" | "boolean" | "floor" | "ceiling" | "round" => count == 1,
        "contains" | "starts-with" | "substring-before" | "substring-after" => count == 2,
        "substring" => matches!(count, 2 | 3),
        "translate" => count == 3,
        "concat" => count > 1,
        _ => return Err(Error::invalid(format!("XPath has no function {name}"))),
    };
    match fits {
        true => Ok(()),
        false => Err(Error::invalid(format!("the function {name} of XPath has another number of arguments"))),
    }
}

fn translate(text: &str, from: &str, to: &str) -> String {
    let mut replaced: HashMap<char, Option<char>> = HashMap::new();
    let mut to = to.chars();
    for c in from.chars() {
        let by = to.next();
        replaced.entry(c).or_insert(by);
    }
    text.chars().filter_map(|c| replaced.get(&c).copied().unwrap_or(Some(c))).collect()
}
