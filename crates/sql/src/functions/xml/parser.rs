//! Expressions of XPath 1.0: their tokens and their syntax.

use crate::error::{Error, Result};

/// The most levels of an expression, and the most operators: each is a level of the tree.
const DEPTH_MAX: usize = 50;
const OPERATORS_MAX: usize = 500;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Number(f64),
    Text(String),
    /// `or`, `and`, `=`, `<`, `+` and so on.
    Operation(&'static str, Box<Expression>, Box<Expression>),
    Negated(Box<Expression>),
    Call(String, Vec<Expression>),
    /// The steps of a path, from the root or from the node at hand.
    Path(bool, Vec<Step>),
    /// Steps from the nodes of an expression, which predicates filter.
    From(Box<Expression>, Vec<Expression>, Vec<Step>),
}

/// A step of a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) axis: Axis,
    pub(super) test: Test,
    pub(super) predicates: Vec<Expression>,
}

/// The direction of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Own,
    Child,
    Descendant,
    DescendantOrOwn,
    Parent,
    Ancestor,
    AncestorOrOwn,
    /// Siblings behind or before a node.
    Following,
    Preceding,
    /// All nodes behind or before a node, but for those below and above it.
    AllFollowing,
    AllPreceding,
    Attribute,
}

/// The nodes that a step takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Name(String),
    /// `*`: each element or attribute.
    Any,
    /// `p:*`: each element or attribute of a namespace.
    AnyOf(String),
    /// `comment()`
    Comment,
    /// `processing-instruction()`, or one of a target.
    Instruction(Option<String>),
    /// `text()`
    Text,
    /// `node()`
    Node,
}

/// The operators by their level, from the loosest.
const OPERATORS: [&[&str]; 6] =
    [&["or"], &["and"], &["=", "!="], &["<=", ">=", "<", ">"], &["+", "-"], &["*", "div", "mod"]];

/// The tests of the kind of a node.
const KINDS: [&str; 4] = ["text", "node", "comment", "processing-instruction"];

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Expression> {
    let mut parser = PathParser { text, at: 0, depth: 0, operators: 0 };
    let parsed = parser.level(0)?;
    parser.skip();
    match parser.at == text.len() {
        true => Ok(parsed),
        false => Err(parser.expected("the end")),
    }
}

struct PathParser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    operators: usize,
}

impl PathParser<'_> {
    fn expected(&self, what: &str) -> Error {
        let rest: String = self.rest().chars().take(20).collect();
        let found = if rest.is_empty() { "its end".to_string() } else { format!("\"{rest}\"") };
        Error::invalid(format!("the XPath '{}' has {found} where {what} was expected", self.text))
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn takes(&mut self, token: &str) -> bool {
        self.skip();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.takes(token) { Ok(()) } else { Err(self.expected(&format!("'{token}'"))) }
    }

    /// Returns the name at hand without reading it.
    fn name(&mut self) -> Option<String> {
        self.skip();
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
        let rest = self.rest();
        if !rest.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return None;
        }
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        // The two colons behind an axis are no part of its name.
        let name = rest[..end].split("::").next().unwrap_or_default();
        Some(name.trim_end_matches(':').to_string())
    }

    fn operator(&mut self, level: usize) -> Option<&'static str> {
        self.skip();
        let word = self.name();
        let rest = self.rest();
        let found =
            OPERATORS[level].iter().find(|operator| match operator.as_bytes()[0].is_ascii_alphabetic() {
                true => word.as_deref() == Some(**operator),
                false => rest.starts_with(**operator),
            });
        found.copied().inspect(|operator| self.at += operator.len())
    }

    /// Counts an operator.
    fn count(&mut self) -> Result<()> {
        self.operators += 1;
        match self.operators > OPERATORS_MAX {
            true => Err(Error::invalid(format!("an XPath has more than {OPERATORS_MAX} operators"))),
            false => Ok(()),
        }
    }

    fn level(&mut self, level: usize) -> Result<Expression> {
        self.depth += 1;
        if self.depth > DEPTH_MAX * OPERATORS.len() {
            return Err(Error::invalid(format!("an XPath has more than {DEPTH_MAX} levels")));
        }
        let next = |parser: &mut Self| {
            if level + 1 < OPERATORS.len() { parser.level(level + 1) } else { parser.unary() }
        };
        let mut left = next(self)?;
        while let Some(operator) = self.operator(level) {
            self.count()?;
            left = Expression::Operation(operator, Box::new(left), Box::new(next(self)?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression> {
        let mut signs = 0_usize;
        while self.takes("-") {
            signs += 1;
        }
        let mut left = self.path()?;
        while self.takes("|") {
            self.count()?;
            left = Expression::Operation("|", Box::new(left), Box::new(self.path()?));
        }
        // Two signs make a number.
        let levels = if signs > 0 { 2 - signs % 2 } else { 0 };
        Ok((0..levels).fold(left, |of, _| Expression::Negated(Box::new(of))))
    }

    /// Reads a path, or another expression with steps behind it.
    fn path(&mut self) -> Result<Expression> {
        self.skip();
        let Some(first) = self.primary()? else {
            let from_root = self.rest().starts_with('/');
            let mut steps = Vec::new();
            if from_root && !self.rest().starts_with("//") {
                self.at += 1;
                self.skip();
                let begins = |c: char| c.is_alphabetic() || matches!(c, '_' | '*' | '@' | '.');
                if !self.rest().starts_with(begins) {
                    return Ok(Expression::Path(true, steps));
                }
            }
            if !self.rest().starts_with('/') {
                steps.push(self.step()?);
            }
            self.steps(&mut steps)?;
            return Ok(Expression::Path(from_root, steps));
        };
        let predicates = self.predicates()?;
        let mut steps = Vec::new();
        self.steps(&mut steps)?;
        Ok(match predicates.is_empty() && steps.is_empty() {
            true => first,
            false => Expression::From(Box::new(first), predicates, steps),
        })
    }

    /// Reads the steps behind the first one, each behind a `/`.
    fn steps(&mut self, steps: &mut Vec<Step>) -> Result<()> {
        loop {
            if self.takes("//") {
                steps.push(Step { axis: Axis::DescendantOrOwn, test: Test::Node, predicates: Vec::new() });
            } else if !self.takes("/") {
                return Ok(());
            }
            steps.push(self.step()?);
        }
    }

    /// Reads a number, a text, a call, or an expression in parentheses; none for a path.
    fn primary(&mut self) -> Result<Option<Expression>> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let Some(end) = rest[1..].find(quote) else { return Err(self.expected("a closing quote")) };
            let text = rest[1..=end].to_string();
            self.at += end + 2;
            return Ok(Some(Expression::Text(text)));
        }
        let digits = rest.trim_start_matches('.');
        if digits.starts_with(|c: char| c.is_ascii_digit()) && rest.len() - digits.len() < 2 {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let number = rest[..end].parse().map_err(|_| self.expected("a number"))?;
            self.at += end;
            return Ok(Some(Expression::Number(number)));
        }
        if self.takes("(") {
            let inner = self.level(0)?;
            self.expect(")")?;
            return Ok(Some(inner));
        }
        let Some(name) = self.name() else { return Ok(None) };
        let behind = self.rest()[name.len()..].trim_start();
        if !behind.starts_with('(') || KINDS.contains(&name.as_str()) {
            return Ok(None);
        }
        self.at += name.len();
        self.expect("(")?;
        let mut arguments = Vec::new();
        if !self.takes(")") {
            loop {
                arguments.push(self.level(0)?);
                if !self.takes(",") {
                    break;
                }
            }
            self.expect(")")?;
        }
        Ok(Some(Expression::Call(name, arguments)))
    }

    fn predicates(&mut self) -> Result<Vec<Expression>> {
        let mut predicates = Vec::new();
        while self.takes("[") {
            predicates.push(self.level(0)?);
            self.expect("]")?;
        }
        Ok(predicates)
    }

    fn step(&mut self) -> Result<Step> {
        let short = |axis| Step { axis, test: Test::Node, predicates: Vec::new() };
        if self.takes("..") {
            return Ok(short(Axis::Parent));
        }
        if self.takes(".") {
            return Ok(short(Axis::Own));
        }
        let mut axis = if self.takes("@") { Axis::Attribute } else { Axis::Child };
        if let Some(name) = self.name()
            && self.rest()[name.len()..].trim_start().starts_with("::")
        {
            axis = self.axis(&name)?;
            self.at += name.len();
            self.expect("::")?;
        }
        let test = if self.takes("*") {
            Test::Any
        } else {
            let Some(name) = self.name() else { return Err(self.expected("a name")) };
            self.at += name.len();
            if self.rest().starts_with(":*") {
                self.at += 2;
                Test::AnyOf(name)
            } else if KINDS.contains(&name.as_str()) && self.takes("(") {
                self.kind(&name)?
            } else {
                Test::Name(name)
            }
        };
        Ok(Step { axis, test, predicates: self.predicates()? })
    }

    /// Reads the rest of a test behind its opening bracket.
    fn kind(&mut self, name: &str) -> Result<Test> {
        self.skip();
        let mut target = None;
        if let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '\''))
            && name == "processing-instruction"
        {
            let rest = &self.rest()[1..];
            let Some(end) = rest.find(quote) else { return Err(self.expected("a closing quote")) };
            target = Some(rest[..end].to_string());
            self.at += end + 2;
        }
        self.expect(")")?;
        Ok(match name {
            "text" => Test::Text,
            "comment" => Test::Comment,
            "processing-instruction" => Test::Instruction(target),
            _ => Test::Node,
        })
    }

    fn axis(&self, name: &str) -> Result<Axis> {
        Ok(match name {
            "self" => Axis::Own,
            "child" => Axis::Child,
            "descendant" => Axis::Descendant,
            "descendant-or-self" => Axis::DescendantOrOwn,
            "parent" => Axis::Parent,
            "ancestor" => Axis::Ancestor,
            "ancestor-or-self" => Axis::AncestorOrOwn,
            "following" => Axis::AllFollowing,
            "preceding" => Axis::AllPreceding,
            "following-sibling" => Axis::Following,
            "preceding-sibling" => Axis::Preceding,
            "attribute" => Axis::Attribute,
            _ => return Err(self.expected("an axis")),
        })
    }
}
