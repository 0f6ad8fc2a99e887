//! The marks within the values of an expression, and the form of JSON among them in stored plans.

use std::str::Chars;

use super::Mark;

/// The function that returns an array, or the ranges of a multirange.
pub(crate) const EITHER: &str = "multirange_or_array";

/// The marks within the values of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Marked(Mark),
    List(Box<Shape>),
    Row(Vec<Shape>),
}

impl Shape {
    pub(in crate::functions) fn marked(mark: Option<Mark>) -> Shape {
        mark.map_or(Shape::Plain, Shape::Marked)
    }

    /// Appends the shape as letters: `j` for JSON, `.` for other values, `[` before an element, `(…)` around fields.
    pub(in crate::functions) fn encode(&self, out: &mut String) {
        match self {
            Shape::Marked(Mark::Json | Mark::Jsonb) => out.push('j'),
            Shape::Plain | Shape::Marked(_) => out.push('.'),
            Shape::List(item) => {
                out.push('[');
                item.encode(out);
            }
            Shape::Row(parts) => {
                out.push('(');
                parts.iter().for_each(|part| part.encode(out));
                out.push(')');
            }
        }
    }

    /// Reads a shape from letters.
    pub(in crate::functions) fn decode(letters: &mut Chars<'_>) -> Option<Shape> {
        Some(match letters.next()? {
            '.' => Shape::Plain,
            'j' => Shape::Marked(Mark::Json),
            '[' => Shape::List(Box::new(Shape::decode(letters)?)),
            '(' => {
                let mut parts = Vec::new();
                while !letters.as_str().starts_with(')') {
                    parts.push(Shape::decode(letters)?);
                }
                letters.next();
                Shape::Row(parts)
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_as_written() {
        let json = || Shape::Marked(Mark::Json);
        let shape =
            Shape::Row(vec![Shape::Plain, Shape::List(Box::new(json())), Shape::Row(Vec::new()), json()]);
        let mut text = String::new();
        shape.encode(&mut text);
        assert_eq!(text, "(.[j()j)");
        assert_eq!(Shape::decode(&mut text.chars()), Some(shape));
        assert_eq!(Shape::decode(&mut "(..".chars()), None);
    }
}
