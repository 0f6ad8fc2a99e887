//! Writes numbers by a pattern: `NUM_processor` of PostgreSQL's formatting.c.

use super::number_pattern::{Anchor, Node, Pattern};

/// A number to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Number {
    /// The digits of an exact number, as in `-12.50`.
    Exact(String),
    /// A float and the number of its digits that count.
    Float(f64, usize),
}

/// The digits that count in a REAL and in a DOUBLE PRECISION.
pub(super) const REAL_DIGITS: usize = 6;
pub(super) const DOUBLE_DIGITS: usize = 15;

/// The place behind a number that has fewer digits than its pattern.
const ENDED: usize = usize::MAX;

/// The width of a Roman numeral.
const ROMAN_WIDTH: usize = 15;

/// Returns the suffix of an ordinal number: `1st`, `12TH`.
pub(super) fn ordinal_suffix(number: &str, upper: bool) -> &'static str {
    let bytes = number.as_bytes();
    let teen = bytes.len() > 1 && bytes[bytes.len() - 2] == b'1';
    match (bytes.last(), teen, upper) {
        (Some(b'1'), false, true) => "ST",
        (Some(b'1'), false, false) => "st",
        (Some(b'2'), false, true) => "ND",
        (Some(b'2'), false, false) => "nd",
        (Some(b'3'), false, true) => "RD",
        (Some(b'3'), false, false) => "rd",
        (_, _, true) => "TH",
        (_, _, false) => "th",
    }
}

/// Writes a number by a pattern.
pub(super) fn write(out: &mut String, number: &Number, pattern: &Pattern) {
    if pattern.exponent {
        return scientific(out, number, pattern);
    }
    let mut pattern = pattern.clone();
    if pattern.roman {
        let text = roman(number.rounded());
        pattern =
            Pattern { nodes: pattern.nodes, unfilled: pattern.unfilled, roman: true, ..Pattern::default() };
        return Writer::new(out, &pattern, text, 0, None).run();
    }
    pattern.before += pattern.shift;
    let text = number.fixed(&mut pattern);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits.to_string()),
        None => (false, text),
    };
    let whole = digits.find('.').unwrap_or(digits.len());
    let (digits, blanks) = match whole.checked_sub(pattern.before) {
        None => (digits, pattern.before - whole),
        Some(0) => (digits, 0),
        // The number has more digits than the pattern.
        Some(_) => {
            let (before, after) = (pattern.before, pattern.after);
            (format!("{}.{}", "#".repeat(before), "#".repeat(after)), 0)
        }
    };
    Writer::new(out, &pattern, digits, blanks, Some(negative)).run();
}

impl Number {
    /// Returns the number with the digits that the pattern has behind the point.
    fn fixed(&self, pattern: &mut Pattern) -> String {
        match self {
            Number::Exact(text) => rounded(text, pattern.shift, pattern.after),
            Number::Float(value, _) if !value.is_finite() => {
                let text = if value.is_nan() { "NaN" } else { "Infinity" };
                if *value < 0.0 { format!("-{text}") } else { text.to_string() }
            }
            Number::Float(value, digits) => {
                let value = value * 10_f64.powi(i32::try_from(pattern.shift).unwrap_or(i32::MAX));
                if !value.is_finite() {
                    return "#".repeat(pattern.before + 1);
                }
                let whole = format!("{:.0}", value.abs()).len();
                pattern.after = pattern.after.min(digits.saturating_sub(whole));
                format!("{value:.*}", pattern.after)
            }
        }
    }

    /// Returns the nearest whole number, if it is small.
    fn rounded(&self) -> Option<i64> {
        match self {
            Number::Exact(text) => rounded(text, 0, 0).parse().ok(),
            Number::Float(value, _) => (value.abs() < 1e6).then(|| value.round_ties_even() as i64),
        }
    }
}

/// Returns an exact number times a power of ten, rounded to a scale half away from zero.
fn rounded(text: &str, shift: usize, scale: usize) -> String {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    // The digits behind the point of the result, and one more to round by.
    let keep = shift + scale + 1;
    let mut digits: Vec<u8> = whole.bytes().collect();
    digits.extend(fraction.bytes().chain(std::iter::repeat(b'0')).take(keep));
    if digits.pop().is_some_and(|digit| digit >= b'5') {
        let nines = digits.iter().rev().take_while(|digit| **digit == b'9').count();
        let end = digits.len() - nines;
        digits[end..].fill(b'0');
        match end.checked_sub(1) {
            Some(last) => digits[last] += 1,
            None => digits.insert(0, b'1'),
        }
    }
    let point = digits.len().saturating_sub(scale);
    let zeros =
        digits[..point].iter().take_while(|digit| **digit == b'0').count().min(point.saturating_sub(1));
    let digits = String::from_utf8_lossy(&digits).into_owned();
    let sign = if negative && digits.bytes().any(|digit| digit != b'0') { "-" } else { "" };
    let whole = digits.get(zeros..point).filter(|whole| !whole.is_empty()).unwrap_or("0");
    let fraction = digits.get(point..).unwrap_or("");
    let dot = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{dot}{fraction}")
}

/// Writes `4.86e-04`.
fn scientific(out: &mut String, number: &Number, pattern: &Pattern) {
    let (mantissa, exponent) = match number {
        Number::Float(value, _) if !value.is_finite() => {
            out.push(' ');
            out.push_str(&"#".repeat(pattern.before));
            out.push('.');
            out.push_str(&"#".repeat(pattern.after + 4));
            return;
        }
        Number::Float(value, _) => {
            let text = format!("{value:.*e}", pattern.after);
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            (mantissa.to_string(), exponent.parse::<i64>().unwrap_or(0))
        }
        Number::Exact(text) => exact_scientific(text, pattern.after),
    };
    if !mantissa.starts_with('-') {
        out.push(' ');
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    out.push_str(&format!("{mantissa}e{sign}{:02}", exponent.abs()));
}

/// Returns the mantissa, with a number of digits behind its point, and the exponent.
fn exact_scientific(text: &str, after: usize) -> (String, i64) {
    let sign = if text.starts_with('-') { "-" } else { "" };
    let text = text.trim_start_matches('-');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction}");
    let Some(first) = digits.find(|c| c != '0') else {
        return (rounded("0", 0, after), 0);
    };
    let exponent = whole.len() as i64 - first as i64 - 1;
    let mantissa = rounded(&format!("{}.{}", &digits[first..=first], &digits[first + 1..]), 0, after);
    // 9.99 may become 10.0.
    match mantissa.strip_prefix("10") {
        Some(_) => (format!("{sign}{}", rounded("1", 0, after)), exponent + 1),
        None => (format!("{sign}{mantissa}"), exponent),
    }
}

fn roman(number: Option<i64>) -> String {
    const NUMERALS: [(i64, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let Some(mut rest) = number.filter(|number| (1..=3999).contains(number)) else {
        return "#".repeat(ROMAN_WIDTH);
    };
    let mut out = String::new();
    for (value, numeral) in NUMERALS {
        while rest >= value {
            out.push_str(numeral);
            rest -= value;
        }
    }
    out
}

/// The state while the nodes of a pattern are written.
struct Writer<'a> {
    out: &'a mut String,
    pattern: &'a Pattern,
    /// The digits and the point, without a sign.
    number: Vec<u8>,
    /// The next of them.
    at: usize,
    /// The digits of the pattern before the first one of the number.
    blanks: usize,
    /// True for a negative number; none for a Roman numeral.
    negative: Option<bool>,
    anchor: Option<Anchor>,
    sign_written: bool,
    /// True once a digit was written.
    inside: bool,
    /// The digits of the pattern so far.
    count: usize,
    /// The last digit that isn't a zero that `FM` drops, or the point.
    last_relevant: Option<usize>,
    /// The number of characters that the digits of the pattern make, less one.
    width: usize,
}

impl<'a> Writer<'a> {
    fn new(
        out: &'a mut String,
        pattern: &'a Pattern,
        number: String,
        blanks: usize,
        negative: Option<bool>,
    ) -> Writer<'a> {
        let signs = pattern.signs;
        let sign_written = match signs.plus || signs.minus {
            true => signs.minus,
            false => negative == Some(false) && pattern.unfilled && signs.anchor.is_none(),
        };
        let anchor = match signs.anchor {
            Some(Anchor::Before(digits)) if digits == pattern.before && !(signs.plus || signs.minus) => {
                Some(Anchor::After)
            }
            other => other,
        };
        let number = number.into_bytes();
        let mut width = pattern.after + pattern.before;
        if sign_written || blanks != 0 {
            width = width.wrapping_sub(1);
        }
        let last_relevant = relevant(&number, pattern, blanks);
        Writer {
            out,
            pattern,
            number,
            at: 0,
            blanks,
            negative,
            anchor,
            sign_written,
            inside: false,
            count: 0,
            last_relevant,
            width,
        }
    }

    fn is_negative(&self) -> bool {
        self.negative == Some(true)
    }

    fn has_bracket(&self) -> bool {
        self.pattern.signs.bracket && (self.is_negative() || !self.pattern.unfilled)
    }

    fn run(mut self) {
        for node in &self.pattern.nodes {
            self.node(*node);
            if self.at == ENDED {
                return;
            }
        }
    }

    fn node(&mut self, node: Node) {
        let unfilled = self.pattern.unfilled;
        match node {
            Node::Text(c) => self.out.push(c),
            Node::Nine => self.digit(false),
            Node::Zero => self.digit(true),
            Node::Point => self.digit(false),
            Node::Comma | Node::Group => match self.inside {
                true => self.out.push(','),
                false if unfilled => {}
                false => self.out.push(' '),
            },
            Node::Currency => self.out.push(' '),
            Node::Minus => match self.is_negative() {
                true => self.out.push('-'),
                false if unfilled => {}
                false => self.out.push(' '),
            },
            Node::Plus => match self.negative == Some(false) {
                true => self.out.push('+'),
                false if unfilled => {}
                false => self.out.push(' '),
            },
            Node::Sign => self.out.push(if self.is_negative() { '-' } else { '+' }),
            Node::Roman { upper } => {
                let text = String::from_utf8_lossy(&self.number).into_owned();
                let text = if upper { text } else { text.to_lowercase() };
                let width = if unfilled { 0 } else { ROMAN_WIDTH };
                self.out.push_str(&format!("{text:>width$}"));
            }
            Node::Ordinal { upper } => {
                let has_none = self.pattern.roman
                    || self.number.first() == Some(&b'#')
                    || self.is_negative()
                    || self.pattern.point;
                if !has_none {
                    let text = String::from_utf8_lossy(&self.number).into_owned();
                    self.out.push_str(ordinal_suffix(&text, upper));
                }
            }
            Node::Silent => {}
        }
    }

    /// True before the zero of `0.1`, which a pattern without `0` doesn't show.
    fn is_leading_zero(&self) -> bool {
        self.pattern.zero_start().is_none()
            && self.at == 0
            && self.number.first() == Some(&b'0')
            && self.pattern.after != 0
    }

    fn ends_at_point(&self) -> bool {
        self.last_relevant.is_some_and(|at| self.number.get(at) == Some(&b'.'))
    }

    /// Writes a digit of the pattern, or its point.
    fn digit(&mut self, zero: bool) {
        if self.pattern.roman {
            return;
        }
        self.inside = false;
        let fills = self.pattern.zero_start();
        if !self.sign_written
            && (self.count >= self.blanks || fills == Some(self.count))
            && (!self.is_leading_zero() || self.ends_at_point())
        {
            self.sign();
        }
        if self.count < self.blanks {
            if fills.is_some_and(|start| start <= self.count) {
                self.out.push('0');
                self.inside = true;
            } else if !self.pattern.unfilled {
                self.out.push(' ');
            }
        } else {
            self.number_part(zero);
        }
        self.after_digit();
        self.count += 1;
    }

    /// Writes the next part of the number: its point or a digit.
    fn number_part(&mut self, zero: bool) {
        match self.number.get(self.at) {
            Some(b'.') => self.out.push('.'),
            _ if self.last_relevant.is_some_and(|last| self.at > last) && !zero => {}
            _ if self.is_leading_zero() => match () {
                () if !self.pattern.unfilled => self.out.push(' '),
                () if self.ends_at_point() => self.out.push('0'),
                () => {}
            },
            Some(digit) => {
                self.out.push(char::from(*digit));
                self.inside = true;
            }
            // The number has fewer digits than the pattern: PostgreSQL's text ends here.
            None => self.at = ENDED,
        }
        if self.at < self.number.len() {
            self.at += 1;
        }
    }

    /// Writes the sign before the first digit.
    fn sign(&mut self) {
        match self.anchor {
            Some(Anchor::Before(_)) => self.out.push(if self.is_negative() { '-' } else { '+' }),
            Some(Anchor::After) => return,
            None if self.has_bracket() => self.out.push(if self.is_negative() { '<' } else { ' ' }),
            None if self.is_negative() => self.out.push('-'),
            None if !self.pattern.unfilled => self.out.push(' '),
            None => {}
        }
        self.sign_written = true;
    }

    /// Writes a sign behind the last digit.
    fn after_digit(&mut self) {
        let mut end = self
            .width
            .wrapping_add(usize::from(self.blanks != 0))
            .wrapping_add(usize::from(self.pattern.point));
        if self.last_relevant.is_some_and(|last| last == self.at) {
            end = self.count;
        }
        if self.count + 1 != end {
            return;
        }
        if self.sign_written && self.has_bracket() {
            self.out.push(if self.is_negative() { '>' } else { ' ' });
        } else if self.anchor == Some(Anchor::After) {
            self.out.push(if self.is_negative() { '-' } else { '+' });
        }
    }
}

/// Returns the place of the last character that `FM` keeps; none if it drops none.
fn relevant(number: &[u8], pattern: &Pattern, blanks: usize) -> Option<usize> {
    if !pattern.unfilled || !pattern.point {
        return None;
    }
    let point = number.iter().position(|byte| *byte == b'.')?;
    let last = number[point..].iter().rposition(|byte| *byte != b'0').map_or(point, |at| point + at);
    // Digits at a `0` of the pattern stay.
    let zeros = pattern.zero_end();
    if zeros <= blanks {
        return Some(last);
    }
    Some(last.max((number.len() - 1).min(zeros - blanks)))
}
