//! The ranges of a value: of a range at most one, of a multirange any number. Operators mean the same for both.

use super::range::{Bound, Range, Written, earlier, later, scan};
use super::value::Value;
use crate::error::{Error, Result};
use crate::functions::marks::Mark;
use crate::functions::marks::subtype::Subtype;
use crate::literals::shown;
use crate::sqlstate;

/// Ranges that are sorted, and that neither overlap nor follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set<'a> {
    pub(super) ranges: Vec<Range<'a>>,
    pub(super) is_multirange: bool,
}

impl<'a> Set<'a> {
    /// Reads a literal of a type.
    pub(super) fn read(mark: Mark, subtype: Subtype, text: &str) -> Result<Set<'static>> {
        let is_multirange = mark.is_multirange();
        let pieces = if is_multirange { scan_all(text) } else { scan_one(text) };
        let pieces = pieces.map_err(|why| {
            let kind = if is_multirange { "multirange" } else { "range" };
            Error::invalid(format!("malformed {kind} literal: \"{}\"", shown(text)))
                .hint(format!(
                    "{why} Expected a literal such as {}.",
                    if is_multirange { "{[1,3),[5,8)}" } else { "[1,3)" }
                ))
                .code(sqlstate::INVALID_TEXT_REPRESENTATION)
        })?;
        let mut ranges = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let Written::Bounds { lower, is_lower_inclusive, upper, is_upper_inclusive } = piece else {
                continue;
            };
            let value = |text: Option<std::borrow::Cow<'_, str>>| {
                text.map(|text| Value::read(subtype, &text)).transpose()
            };
            let lower = Bound::lower(value(lower)?, is_lower_inclusive);
            let upper = Bound::upper(value(upper)?, is_upper_inclusive);
            if let Some(range) = Range::between(lower, upper)? {
                ranges.extend(range.canonical(subtype)?);
            }
        }
        Ok(Set::of(ranges, is_multirange))
    }

    /// Reads a stored value.
    pub(super) fn of_canonical(text: &'a str) -> Result<Set<'a>> {
        Set::parsed(text).ok_or_else(|| {
            Error::invalid(format!("\"{}\" is no range or multirange", shown(text)))
                .hint("Cast it, as in '[1,5)'::INT4RANGE.")
                .code(sqlstate::INVALID_TEXT_REPRESENTATION)
        })
    }

    fn parsed(text: &'a str) -> Option<Set<'a>> {
        let is_multirange = text.starts_with('{');
        let pieces = if is_multirange { scan_all(text) } else { scan_one(text) }.ok()?;
        let mut ranges = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let Written::Bounds { lower, is_lower_inclusive, upper, is_upper_inclusive } = piece else {
                continue;
            };
            let lower = match lower {
                Some(text) => Some(Value::of_canonical(text)?),
                None => None,
            };
            let upper = match upper {
                Some(text) => Some(Value::of_canonical(text)?),
                None => None,
            };
            let (lower, upper) =
                (Bound::lower(lower, is_lower_inclusive), Bound::upper(upper, is_upper_inclusive));
            ranges.push(Range { lower, upper });
        }
        Some(Set { ranges, is_multirange })
    }

    /// Sorts ranges, and joins those that overlap or follow each other.
    pub(super) fn of(mut ranges: Vec<Range<'a>>, is_multirange: bool) -> Set<'a> {
        ranges.sort_by(|one, other| {
            one.lower.compare(&other.lower).then_with(|| one.upper.compare(&other.upper))
        });
        let mut joined: Vec<Range<'a>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if last.overlaps(&range) || last.is_followed_by(&range) => {
                    last.upper = later(&last.upper, &range.upper).clone();
                }
                _ => joined.push(range),
            }
        }
        Set { ranges: joined, is_multirange }
    }

    /// Returns the text that PostgreSQL writes.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        if !self.is_multirange {
            match self.ranges.first() {
                Some(range) => range.push(&mut out),
                None => out.push_str("empty"),
            }
            return out;
        }
        out.push('{');
        for (at, range) in self.ranges.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            range.push(&mut out);
        }
        out.push('}');
        out
    }

    /// Returns a text with the order of values of a type: that of their ranges, a missing one first.
    pub(super) fn key(&self) -> String {
        let mut out = String::new();
        for range in &self.ranges {
            out.push('1');
            range.push_key(&mut out);
        }
        out.push('0');
        out
    }

    fn ends(&self) -> Option<(&Range<'a>, &Range<'a>)> {
        self.ranges.first().zip(self.ranges.last())
    }

    /// Returns the range from the first to the last bound.
    pub(super) fn merged(&self) -> Set<'a> {
        let whole =
            self.ends().map(|(first, last)| Range { lower: first.lower.clone(), upper: last.upper.clone() });
        Set { ranges: whole.into_iter().collect(), is_multirange: false }
    }

    pub(super) fn contains_value(&self, value: Value<'a>) -> bool {
        let point =
            Range { lower: Bound::lower(Some(value.clone()), true), upper: Bound::upper(Some(value), true) };
        self.ranges.iter().any(|range| range.contains(&point))
    }

    pub(super) fn contains(&self, other: &Set<'_>) -> bool {
        let mut from = self.ranges.iter().peekable();
        other.ranges.iter().all(|range| {
            while from.next_if(|own| own.upper.compare(&range.lower).is_lt()).is_some() {}
            from.peek().is_some_and(|own| own.contains(range))
        })
    }

    pub(super) fn overlaps(&self, other: &Set<'_>) -> bool {
        let mut from = self.ranges.iter().peekable();
        other.ranges.iter().any(|range| {
            while from.next_if(|own| own.upper.compare(&range.lower).is_lt()).is_some() {}
            from.peek().is_some_and(|own| own.overlaps(range))
        })
    }

    /// True if the value ends before another begins.
    pub(super) fn is_before(&self, other: &Set<'_>) -> bool {
        let ends = self.ends().zip(other.ends());
        ends.is_some_and(|((_, last), (first, _))| last.upper.compare(&first.lower).is_lt())
    }

    /// True if the value doesn't extend to the right of another.
    pub(super) fn is_left(&self, other: &Set<'_>) -> bool {
        let ends = self.ends().zip(other.ends());
        ends.is_some_and(|((_, last), (_, other))| last.upper.compare(&other.upper).is_le())
    }

    /// True if the value doesn't extend to the left of another.
    pub(super) fn is_right(&self, other: &Set<'_>) -> bool {
        let ends = self.ends().zip(other.ends());
        ends.is_some_and(|((first, _), (other, _))| first.lower.compare(&other.lower).is_ge())
    }

    /// True if one value begins where the other ends.
    pub(super) fn is_adjacent(&self, other: &Set<'_>) -> bool {
        let ends = self.ends().zip(other.ends());
        ends.is_some_and(|((first, last), (other_first, other_last))| {
            last.is_followed_by(other_first) || other_last.is_followed_by(first)
        })
    }

    pub(super) fn union(mut self, other: Set<'a>) -> Result<Set<'a>> {
        self.ranges.extend(other.ranges);
        Set::of(self.ranges, self.is_multirange).contiguous("union")
    }

    /// Fails if a range would have a gap.
    fn contiguous(self, operation: &str) -> Result<Set<'a>> {
        if self.is_multirange || self.ranges.len() <= 1 {
            return Ok(self);
        }
        Err(Error::invalid(format!("result of range {operation} would not be contiguous"))
            .hint("Convert the ranges to multiranges with multirange().")
            .code(sqlstate::DATA_EXCEPTION))
    }

    pub(super) fn intersection(&self, other: &Set<'a>) -> Set<'a> {
        let mut from = self.ranges.as_slice();
        let mut ranges = Vec::new();
        for range in &other.ranges {
            let passed = from.iter().take_while(|own| own.upper.compare(&range.lower).is_lt()).count();
            from = from.get(passed..).unwrap_or_default();
            ranges.extend(from.iter().map_while(|own| own.intersection(range)));
        }
        Set { ranges, is_multirange: self.is_multirange }
    }

    pub(super) fn difference(self, other: &Set<'a>) -> Result<Set<'a>> {
        let Set { ranges, is_multirange } = self;
        let mut removed = other.ranges.as_slice();
        let mut left = Vec::with_capacity(ranges.len());
        for range in ranges {
            let passed = removed.iter().take_while(|cut| cut.upper.compare(&range.lower).is_lt()).count();
            removed = removed.get(passed..).unwrap_or_default();
            let mut rest = Some(range);
            for cut in removed {
                let Some(range) = rest.take_if(|rest| rest.overlaps(cut)) else { break };
                if range.lower.compare(&cut.lower).is_lt() {
                    left.push(Range { lower: range.lower.clone(), upper: cut.lower.flipped() });
                }
                if range.upper.compare(&cut.upper).is_gt() {
                    rest = Some(Range { lower: cut.upper.flipped(), upper: range.upper });
                }
            }
            left.extend(rest);
        }
        Set { ranges: left, is_multirange }.contiguous("difference")
    }

    /// Returns the lower bound of all ranges.
    pub(super) fn lower(&self) -> Option<&Bound<'a>> {
        self.ranges.first().map(|range| &range.lower)
    }

    /// Returns the upper bound of all ranges.
    pub(super) fn upper(&self) -> Option<&Bound<'a>> {
        self.ranges.last().map(|range| &range.upper)
    }

    /// Returns the range from the lower of the first bounds to the upper of the last ones of two ranges.
    pub(super) fn spanned(self, other: Set<'a>) -> Set<'a> {
        let mut all = self.ranges.into_iter().chain(other.ranges);
        let first = all.next();
        let whole = first.map(|first| {
            all.fold(first, |whole, range| Range {
                lower: earlier(&whole.lower, &range.lower).clone(),
                upper: later(&whole.upper, &range.upper).clone(),
            })
        });
        Set { ranges: whole.into_iter().collect(), is_multirange: false }
    }
}

fn scan_one(text: &str) -> std::result::Result<Vec<Written<'_>>, &'static str> {
    let (range, rest) = scan(text)?;
    match (rest.trim_start(), &range) {
        ("", _) => Ok(vec![range]),
        (_, Written::Empty) => Err("Junk after \"empty\" key word."),
        _ => Err("Junk after right parenthesis or bracket."),
    }
}

fn scan_all(text: &str) -> std::result::Result<Vec<Written<'_>>, &'static str> {
    let mut rest = text.trim_start().strip_prefix('{').ok_or("Missing left brace.")?.trim_start();
    let mut all = Vec::new();
    if !rest.starts_with('}') {
        loop {
            let (range, after) = scan(rest)?;
            all.push(range);
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(next) => rest = next.trim_start(),
                None => break,
            }
        }
    }
    match rest.strip_prefix('}').map(str::trim_start) {
        Some("") => Ok(all),
        Some(_) => Err("Junk after closing right brace."),
        None if rest.is_empty() => Err("Unexpected end of input."),
        None => Err("Expected comma or end of multirange."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mark: Mark, text: &str) -> Set<'static> {
        Set::read(mark, Subtype::of(mark).unwrap(), text).unwrap()
    }

    #[test]
    fn values_have_one_text() {
        for (mark, given, expected) in [
            (Mark::Int4range, "(1,5]", "[2,6)"),
            (Mark::Int4range, "(1,2)", "empty"),
            (Mark::Int4range, " Empty ", "empty"),
            (Mark::Numrange, "[1.50,2.0]", "[1.5,2]"),
            (Mark::Daterange, "(2024-02-28,infinity]", "[2024-02-29,infinity]"),
            (Mark::Tsrange, "[2024-01-01,]", "[\"2024-01-01 00:00:00\",)"),
            (Mark::Int4multirange, "{[5,8),empty,[1,2],(2,4)}", "{[1,4),[5,8)}"),
            (Mark::Int4multirange, " { } ", "{}"),
        ] {
            let text = read(mark, given).text();
            assert_eq!(text, expected, "{given}");
            assert_eq!(Set::of_canonical(&text).unwrap().text(), expected);
        }
    }

    #[test]
    fn keys_have_the_order_of_values() {
        let sorted = ["empty", "(,3)", "(,)", "[-7,9)", "[1,3)", "[1,4)", "[1,)", "[2,3)", "[10,11)"];
        let keys: Vec<String> = sorted.iter().map(|text| read(Mark::Int4range, text).key()).collect();
        assert!(keys.is_sorted_by(|one, other| one < other), "{keys:?}");
        let sorted = ["{}", "{(,0)}", "{(,0),[5,7)}", "{[1,3)}", "{[1,3),[5,7)}", "{[1,4)}"];
        let keys: Vec<String> = sorted.iter().map(|text| read(Mark::Int4multirange, text).key()).collect();
        assert!(keys.is_sorted_by(|one, other| one < other), "{keys:?}");
    }

    #[test]
    fn long_and_broken_literals_are_read_or_refused() {
        let many = format!("{{{}[1,2)}}", "[1,2),".repeat(100_000));
        assert_eq!(read(Mark::Int4multirange, &many).text(), "{[1,2)}");
        for wrong in
            ["{".repeat(100_000), "[".repeat(100_000), format!("[{},)", "9".repeat(200_000)), "[\\".into()]
        {
            for mark in [Mark::Int4range, Mark::Numrange, Mark::Tsrange, Mark::Datemultirange] {
                assert!(Set::read(mark, Subtype::of(mark).unwrap(), &wrong).is_err());
            }
        }
        for wrong in ["", "x", "[a,b)", "[-a!,)", "[2024-99-99,)", "{[1,2)"] {
            assert!(Set::of_canonical(wrong).is_err(), "{wrong}");
        }
    }
}
