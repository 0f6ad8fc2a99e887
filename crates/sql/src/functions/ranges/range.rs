//! A range that isn't empty, with the order of its bounds.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::value::Value;
use crate::error::{Error, Result};
use crate::functions::marks::subtype::Subtype;
use crate::sqlstate;

/// An end of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound<'a> {
    /// None if there is no bound.
    pub(super) value: Option<Value<'a>>,
    /// True if the value belongs to the range.
    pub(super) is_inclusive: bool,
    is_lower: bool,
}

/// A range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range<'a> {
    pub(super) lower: Bound<'a>,
    pub(super) upper: Bound<'a>,
}

impl<'a> Bound<'a> {
    pub(super) fn lower(value: Option<Value<'a>>, is_inclusive: bool) -> Bound<'a> {
        Bound { is_inclusive: is_inclusive && value.is_some(), value, is_lower: true }
    }

    pub(super) fn upper(value: Option<Value<'a>>, is_inclusive: bool) -> Bound<'a> {
        Bound { is_inclusive: is_inclusive && value.is_some(), value, is_lower: false }
    }

    /// Compares the values alone.
    fn compare_values(&self, other: &Bound<'_>) -> Ordering {
        let end = |bound: &Bound<'_>| match bound.value {
            Some(_) => 0,
            None if bound.is_lower => -1,
            None => 1,
        };
        match (&self.value, &other.value) {
            (Some(one), Some(other)) => one.compare(other),
            _ => end(self).cmp(&end(other)),
        }
    }

    /// Compares the places of two bounds: that of an exclusive one is just within its value.
    pub(super) fn compare(&self, other: &Bound<'_>) -> Ordering {
        let within = |bound: &Bound<'_>| match (bound.is_inclusive || bound.value.is_none(), bound.is_lower) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => -1,
        };
        self.compare_values(other).then_with(|| within(self).cmp(&within(other)))
    }

    /// Returns the bound of the range on the other side.
    pub(super) fn flipped(&self) -> Bound<'a> {
        Bound { value: self.value.clone(), is_inclusive: !self.is_inclusive, is_lower: !self.is_lower }
    }

    /// True if nothing lies between this upper bound and a lower one, nor in both.
    fn meets(&self, lower: &Bound<'_>) -> bool {
        match (&self.value, &lower.value) {
            (Some(one), Some(other)) => {
                one.compare(other) == Ordering::Equal && self.is_inclusive != lower.is_inclusive
            }
            _ => false,
        }
    }
}

impl<'a> Range<'a> {
    /// Returns the range between two bounds; none if it is empty. Fails if they are in the wrong order.
    pub(super) fn between(lower: Bound<'a>, upper: Bound<'a>) -> Result<Option<Range<'a>>> {
        match lower.compare_values(&upper) {
            Ordering::Greater => {
                Err(Error::invalid("range lower bound must be less than or equal to range upper bound")
                    .code(sqlstate::DATA_EXCEPTION))
            }
            Ordering::Equal if !(lower.is_inclusive && upper.is_inclusive) => Ok(None),
            _ => Ok(Some(Range { lower, upper })),
        }
    }

    /// Returns the range as it is stored: of whole numbers and dates with an inclusive lower and an exclusive upper bound.
    pub(super) fn canonical(self, subtype: Subtype) -> Result<Option<Range<'a>>> {
        if !subtype.is_discrete() {
            return Ok(Some(self));
        }
        let Range { mut lower, mut upper } = self;
        if !lower.is_inclusive
            && let Some(value) = lower.value.take_if(|value| !value.is_infinite())
        {
            lower = Bound::lower(Some(value.next(subtype)?), true);
        }
        if upper.is_inclusive
            && let Some(value) = upper.value.take_if(|value| !value.is_infinite())
        {
            upper = Bound::upper(Some(value.next(subtype)?), false);
        }
        Range::between(lower, upper)
    }

    pub(super) fn contains(&self, other: &Range<'_>) -> bool {
        self.lower.compare(&other.lower).is_le() && self.upper.compare(&other.upper).is_ge()
    }

    pub(super) fn overlaps(&self, other: &Range<'_>) -> bool {
        self.lower.compare(&other.upper).is_le() && other.lower.compare(&self.upper).is_le()
    }

    /// True if the range ends where another begins, without a gap.
    pub(super) fn is_followed_by(&self, other: &Range<'_>) -> bool {
        self.upper.meets(&other.lower)
    }

    /// Returns what two ranges share.
    pub(super) fn intersection(&self, other: &Range<'a>) -> Option<Range<'a>> {
        self.overlaps(other).then(|| Range {
            lower: later(&self.lower, &other.lower).clone(),
            upper: earlier(&self.upper, &other.upper).clone(),
        })
    }

    /// Appends the text that PostgreSQL writes.
    pub(super) fn push(&self, out: &mut String) {
        out.push(if self.lower.is_inclusive { '[' } else { '(' });
        push_value(self.lower.value.as_ref(), out);
        out.push(',');
        push_value(self.upper.value.as_ref(), out);
        out.push(if self.upper.is_inclusive { ']' } else { ')' });
    }

    /// Appends a text with the order of ranges, none of which is the beginning of another.
    pub(super) fn push_key(&self, out: &mut String) {
        match &self.lower.value {
            None => out.push('0'),
            Some(value) => {
                out.push('1');
                value.push_key(out);
                out.push(if self.lower.is_inclusive { '0' } else { '1' });
            }
        }
        match &self.upper.value {
            None => out.push('2'),
            Some(value) => {
                out.push('1');
                value.push_key(out);
                out.push(if self.upper.is_inclusive { '1' } else { '0' });
            }
        }
    }
}

pub(super) fn later<'b, 'a>(one: &'b Bound<'a>, other: &'b Bound<'a>) -> &'b Bound<'a> {
    if one.compare(other).is_ge() { one } else { other }
}

pub(super) fn earlier<'b, 'a>(one: &'b Bound<'a>, other: &'b Bound<'a>) -> &'b Bound<'a> {
    if one.compare(other).is_le() { one } else { other }
}

/// Appends a bound, in quotes if it has a blank.
fn push_value(value: Option<&Value<'_>>, out: &mut String) {
    let Some(value) = value else { return };
    let start = out.len();
    value.push(out);
    if out.get(start..).is_some_and(|written| written.contains(' ')) {
        out.insert(start, '"');
        out.push('"');
    }
}

/// A range as written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written<'t> {
    Empty,
    Bounds {
        lower: Option<Cow<'t, str>>,
        is_lower_inclusive: bool,
        upper: Option<Cow<'t, str>>,
        is_upper_inclusive: bool,
    },
}

/// Reads the range that a text begins with. Returns the rest of the text, or what is wrong.
pub(super) fn scan(text: &str) -> std::result::Result<(Written<'_>, &str), &'static str> {
    let text = text.trim_start();
    if let Some((word, rest)) = text.split_at_checked(5)
        && word.eq_ignore_ascii_case("empty")
    {
        return Ok((Written::Empty, rest));
    }
    let is_lower_inclusive = text.starts_with('[');
    let rest = text.strip_prefix(['[', '(']).ok_or("Missing left parenthesis or bracket.")?;
    let (lower, rest) = scan_bound(rest)?;
    let rest = rest.strip_prefix(',').ok_or("Missing comma after lower bound.")?;
    let (upper, rest) = scan_bound(rest)?;
    let is_upper_inclusive = rest.starts_with(']');
    let rest = rest.strip_prefix([']', ')']).ok_or("Too many commas.")?;
    Ok((Written::Bounds { lower, is_lower_inclusive, upper, is_upper_inclusive }, rest))
}

/// Reads a bound up to a comma or a closing bracket; none if there are no characters.
fn scan_bound(text: &str) -> std::result::Result<(Option<Cow<'_, str>>, &str), &'static str> {
    let is_end = |next: char| matches!(next, ',' | ')' | ']');
    if text.starts_with(is_end) {
        return Ok((None, text));
    }
    let end = text.find(|next: char| is_end(next) || next == '"' || next == '\\');
    if let Some((plain, rest)) = end.and_then(|end| text.split_at_checked(end))
        && rest.starts_with(is_end)
    {
        return Ok((Some(Cow::Borrowed(plain)), rest));
    }
    let mut value = String::new();
    let mut is_quoted = false;
    let mut all = text.char_indices().peekable();
    while let Some((at, next)) = all.next() {
        match next {
            '\\' => value.push(all.next().ok_or("Unexpected end of input.")?.1),
            '"' if is_quoted && all.next_if(|(_, after)| *after == '"').is_some() => value.push('"'),
            '"' => is_quoted = !is_quoted,
            next if is_end(next) && !is_quoted => {
                let rest = text.get(at..).unwrap_or_default();
                return Ok((Some(Cow::Owned(value)), rest));
            }
            next => value.push(next),
        }
    }
    Err("Unexpected end of input.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_scanned_as_postgresql_does() {
        let bounds = |text| match scan(text) {
            Ok((Written::Bounds { lower, upper, .. }, rest)) => (lower, upper, rest),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(bounds(" [1,2)x"), (Some("1".into()), Some("2".into()), "x"));
        assert_eq!(bounds("(,]"), (None, None, ""));
        assert_eq!(bounds(r#"["a""b", "c\,d" e)"#), (Some("a\"b".into()), Some(" c,d e".into()), ""));
        assert_eq!(bounds(r#"["",\])"#).0, Some("".into()));
        assert_eq!(scan(" Empty ,"), Ok((Written::Empty, " ,")));
        for (wrong, why) in [
            ("", "Missing left parenthesis or bracket."),
            ("{1,2}", "Missing left parenthesis or bracket."),
            ("[1", "Unexpected end of input."),
            ("[1)", "Missing comma after lower bound."),
            ("[1,2,3)", "Too many commas."),
            ("[\"1,2)", "Unexpected end of input."),
            ("[1,2\\", "Unexpected end of input."),
            ("[é", "Unexpected end of input."),
        ] {
            assert_eq!(scan(wrong), Err(why), "{wrong}");
        }
    }
}
